"""Who knows the passwords, and a service behind the door."""

import secrets

from majordomus import Forbidden, NotFound, Request, Worker

PASSWORDS = {"ada": "lovelace"}
tokens: dict[str, str] = {}

worker = Worker("tcp://127.0.0.1:5555")


@worker.service("accounts.login")
def login(request: Request) -> str:
    user, password = (frame.decode() for frame in request.frames)
    if not secrets.compare_digest(PASSWORDS.get(user, ""), password):
        raise Forbidden("wrong name or password")
    token = secrets.token_hex(16)
    tokens[token] = user
    return token


@worker.service("accounts.whose")
def whose(request: Request) -> str:
    if request.text not in tokens:
        raise NotFound("no such token")
    return tokens[request.text]


@worker.service("diary")
def diary(request: Request) -> str:
    return f"the diary of {request.broker_metadata['user']}"


if __name__ == "__main__":
    worker.run()
