"""A client and a worker of RFC 9 in raw frames of MDP/0.1 and 0.2, with pyzmq alone and none of our
code.

python titanic.py client DIALECT URL SERVICE FRAME…    one call; prints its reply in hex
python titanic.py worker DIALECT URL SERVICE COUNT     serves so many requests, then ends

DIALECT is 01 or 02.
"""

from __future__ import annotations

import sys

import zmq


def client(dialect: str, url: str, service: str, *body: str) -> None:
    """A REQ socket, as RFC 7 has it, or a DEALER socket, as RFC 18 does."""
    socket = zmq.Context.instance().socket(zmq.REQ if dialect == "01" else zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(url)
    name = service.encode()
    asked = [b"MDPC01", name] if dialect == "01" else [b"MDPC02", b"\x01", name]
    answered = [b"MDPC01", name] if dialect == "01" else [b"MDPC02", b"\x03", name]
    socket.send_multipart([*asked, *(frame.encode() for frame in body)])
    if not socket.poll(10_000):
        sys.exit("no reply within 10 s")
    frames = socket.recv_multipart()
    if frames[: len(answered)] != answered:
        sys.exit(f"not a reply: {frames!r}")
    print("\n".join(frame.hex() for frame in frames[len(answered) :]))


def worker(dialect: str, url: str, service: str, count: str) -> None:
    """A DEALER socket: READY, then the replies, each the request in reverse."""
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 1000)
    socket.connect(url)
    head = [b"", b"MDPW01"] if dialect == "01" else [b"MDPW02"]
    final = b"\x03" if dialect == "01" else b"\x04"
    socket.send_multipart([*head, b"\x01", service.encode()])
    served = 0
    while served < int(count):
        if not socket.poll(20_000):
            sys.exit("no request within 20 s")
        command, *rest = socket.recv_multipart()[len(head) :]
        if command != b"\x02":
            continue
        address, empty, *body = rest
        reply = [frame[::-1] for frame in body]
        socket.send_multipart([*head, final, address, empty, *reply])
        served += 1
    socket.close()
    zmq.Context.instance().term()


if __name__ == "__main__":
    {"client": client, "worker": worker}[sys.argv[1]](*sys.argv[2:])
