"""One shard of a word list: `python shard.py ab` knows the words that begin with a or b.

All shards serve the same name, "words": who asks one of them gets a part of the answer, who asks
all of them the whole.
"""

import sys

from majordomus import Request, Worker

WORDS = ("ant", "ape", "bat", "bee", "cat", "cow", "dog", "duck")


def main(letters: str) -> None:
    mine = [word for word in WORDS if word[0] in letters]
    worker = Worker("tcp://127.0.0.1:5555")

    @worker.service("words")
    def words(request: Request) -> list[str]:
        return [word for word in mine if request.text in word]

    worker.run()


if __name__ == "__main__":
    main(sys.argv[1])
