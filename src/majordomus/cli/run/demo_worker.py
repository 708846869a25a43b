"""The services of the worker processes of `majordomus demo`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

from majordomus.net.worker.request import Request
from majordomus.net.worker.worker import Worker

worker = Worker()  # the demo passes its broker as a flag


@worker.service("who")
def who(request: Request) -> str:
    """Return the id of the process that runs the handler."""
    return str(os.getpid())


@worker.service("count")
def count(request: Request) -> Iterator[str]:
    """Stream the numbers from 1 to the body's."""
    for number in range(1, int(request.text) + 1):
        yield str(number)


@worker.service("divide")
def divide(request: Request) -> str:
    """Divide; raise when the divisor is 0."""
    dividend, divisor = request.text.split("/")
    return str(int(dividend) // int(divisor))


@worker.service("work")
def work(request: Request) -> str:
    """Sleep for the body's seconds; print a line for the demo at the beginning."""
    sys.stdout.write(f"begun {os.getpid()}\n")
    sys.stdout.flush()
    time.sleep(float(request.text))
    return str(os.getpid())
