"""A member of a room: `python client.py ROOM NAME`. What you type goes to the others."""

import sys
import threading

from majordomus import Client

room, name = sys.argv[1:]
with (
    Client("tcp://127.0.0.1:5555") as client,
    client.open("chat", f"{room}/{name}", timeout=3600) as talk,
):

    def listen() -> None:
        for part in talk:
            print(part.text, flush=True)

    listening = threading.Thread(target=listen)
    listening.start()
    for line in sys.stdin:
        talk.send(line.rstrip("\n"))
    talk.finish()
    listening.join()
