"""Hands in two jobs, and hears of each when it is done."""

from majordomus import Client

JOBS = ["a long report", "memo"]

with Client("tcp://127.0.0.1:5555") as client, client.events() as results:
    for title in JOBS:
        print(client.call("print", title, timeout=10).text)
    for _ in JOBS:
        result = results.get(timeout=30)
        print(result.text, "on", result.metadata["pages"], "pages")
