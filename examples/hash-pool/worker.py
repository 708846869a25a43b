"""Hashes in processes, one for each processor, and tells how far it is."""

import hashlib
from collections.abc import Iterator

from majordomus import Request, Worker

worker = Worker("tcp://127.0.0.1:5555")

ROUNDS = 400_000
STEP = ROUNDS // 20


@worker.service("stretch", run="process")
def stretch(request: Request) -> Iterator[str]:
    """The body, hashed over and over. Each part but the last is a percentage."""
    digest = request.body
    for done in range(ROUNDS):
        if done % STEP == 0:
            yield f"{100 * done // ROUNDS} %"
        digest = hashlib.sha256(digest).digest()
    yield digest.hex()


if __name__ == "__main__":  # the processes import this file under another name
    worker.run()
