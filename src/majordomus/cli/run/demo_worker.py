"""What the worker processes of `majordomus demo` serve."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

from majordomus.net.worker.request import Request
from majordomus.net.worker.worker import Worker

worker = Worker()  # the demo says where its broker is


@worker.service("who")
def who(request: Request) -> str:
    """The process that answers."""
    return str(os.getpid())


@worker.service("count")
def count(request: Request) -> Iterator[str]:
    """A stream: 1, 2, 3 … as many as the body says."""
    for number in range(1, int(request.text) + 1):
        yield str(number)


@worker.service("divide")
def divide(request: Request) -> str:
    """A handler that may raise."""
    dividend, divisor = request.text.split("/")
    return str(int(dividend) // int(divisor))


@worker.service("work")
def work(request: Request) -> str:
    """Takes as many seconds as the body says, and tells the demo when it begins."""
    sys.stdout.write(f"begun {os.getpid()}\n")
    sys.stdout.flush()
    time.sleep(float(request.text))
    return str(os.getpid())
