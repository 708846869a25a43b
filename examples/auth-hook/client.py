"""Logs in, reads a diary, and finds that there is no way around the door."""

from majordomus import Client, DeadlineExceeded, Forbidden

with Client("tcp://127.0.0.1:5555", timeout=10) as client:
    token = client.call("login", ["ada", "lovelace"]).text
    print(client.call("diary", metadata={"token": token}).text)

    try:
        client.call("login", ["ada", "byron"])
    except Forbidden as error:
        print(error)

    for service, metadata in (
        ("diary", {}),
        ("diary", {"token": "guessed"}),
        ("accounts.whose", {"token": token}),
    ):
        try:
            client.call(service, metadata=metadata, timeout=0.5)
        except DeadlineExceeded:
            print(f"{service}: silence")
