"""Calls the services of worker.py."""

from majordomus import Client

with Client("tcp://127.0.0.1:5555") as client:
    print(client.call("hello", b"world", timeout=5).body.decode())

    naps = [client.submit("nap", b"0.2") for _ in range(5)]  # five at once
    print(*(nap.result().body.decode() for nap in naps))

    for part in client.stream("count", b"3"):
        print(part.body.decode())
