"""Accepts a job at once, works for as long as it takes, and pushes the result to the client."""

import threading
import time

from majordomus import Request, Worker

worker = Worker("tcp://127.0.0.1:5555")


@worker.service("print")
def accept(request: Request) -> str:
    """Returns before the work has begun: the client need not wait, nor keep a call open."""
    threading.Thread(target=work, args=(request.client, request.text), daemon=True).start()
    return f"accepted: {request.text}"


def work(client: bytes, title: str) -> None:
    """Minutes or hours later, from any thread: `client` is all that is to be kept."""
    time.sleep(0.1 * len(title))
    worker.push(client, f"printed: {title}", metadata={"pages": len(title)})


if __name__ == "__main__":
    worker.run()
