"""A client and a worker of RFC 9 in raw frames of MDP/0.1, with pyzmq alone and none of our code.

python titanic.py client URL SERVICE FRAME…    one call; prints its reply in hex
python titanic.py worker URL SERVICE COUNT     serves so many requests, then ends
"""

from __future__ import annotations

import sys

import zmq


def client(url: str, service: str, *body: str) -> None:
    """A REQ socket, as RFC 7 has it."""
    socket = zmq.Context.instance().socket(zmq.REQ)
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(url)
    socket.send_multipart([b"MDPC01", service.encode(), *(frame.encode() for frame in body)])
    if not socket.poll(10_000):
        sys.exit("no reply within 10 s")
    header, name, *frames = socket.recv_multipart()
    if (header, name) != (b"MDPC01", service.encode()):
        sys.exit(f"not a reply: {header!r} {name!r}")
    print("\n".join(frame.hex() for frame in frames))


def worker(url: str, service: str, count: str) -> None:
    """A DEALER socket: READY, then the replies, each the request in reverse."""
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 1000)
    socket.connect(url)
    socket.send_multipart([b"", b"MDPW01", b"\x01", service.encode()])
    served = 0
    while served < int(count):
        if not socket.poll(20_000):
            sys.exit("no request within 20 s")
        frames = socket.recv_multipart()
        if frames[2] != b"\x02":
            continue
        _, _, _, address, empty, *body = frames
        reply = [frame[::-1] for frame in body]
        socket.send_multipart([b"", b"MDPW01", b"\x03", address, empty, *reply])
        served += 1
    socket.close()
    zmq.Context.instance().term()


if __name__ == "__main__":
    {"client": client, "worker": worker}[sys.argv[1]](*sys.argv[2:])
