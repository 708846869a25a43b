"""zerorpc on gevent, nobody between: python_zerorpc.py serve|call URL."""

from __future__ import annotations

import time

import gevent
import zerorpc

from benchmarks.calling import BODY, Times, arguments


class Echo:
    def echo(self, body: bytes) -> bytes:
        return body


def serve(url: str) -> None:
    server = zerorpc.Server(Echo())
    server.bind(url)
    server.run()


def call(url: str, in_flight: int, seconds: float) -> None:
    client = zerorpc.Client(url)
    times = Times(seconds)

    def caller() -> None:
        going = True
        while going:
            began = time.perf_counter()
            going = times.note(began, client.echo(BODY))

    gevent.joinall([gevent.spawn(caller) for _ in range(in_flight)], raise_error=True)
    times.report(in_flight)
    client.close()


def main() -> None:
    asked = arguments()
    if asked.role == "serve":
        serve(asked.url)
    else:
        call(asked.url, asked.in_flight, asked.seconds)


if __name__ == "__main__":
    main()
