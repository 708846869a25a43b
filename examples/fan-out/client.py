"""Asks every shard at once and prints what each knows, as it comes, and how many there were."""

import sys

from majordomus import Client


def main(part: str) -> None:
    with (
        Client("tcp://127.0.0.1:5555") as client,
        client.gather("words", part, timeout=5.0, stall=2.0) as replies,
    ):
        found = sorted(frame.decode() for reply in replies for frame in reply.frames)
        print(*found)
        print(f"{len(replies.workers)} asked, {len(replies.failures)} failed")


if __name__ == "__main__":
    main(sys.argv[1])
