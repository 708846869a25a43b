"""A worker that logs in says HELLO with its token before READY, and again when it is renewed."""

from __future__ import annotations

from typing import Any

import pytest

from majordomus.core.session.login import Credentials
from majordomus.core.worker.login import LoginWorkerSession
from majordomus.core.worker.session import WorkerSettings
from majordomus.errors import LocalProtocolError
from majordomus.protocol import mdp03, metadata, spec
from majordomus.protocol.spec import Dialect
from tests.core.session_harness import Script, WorkerScript, ids, shortest

SECRET = Credentials([b"wes", b"secret"])


class LoginScript(WorkerScript):
    """A worker's session with credentials."""

    def __init__(self, **settings: Any) -> None:
        settings = {"services": (b"echo",), **settings}
        Script.__init__(
            self, LoginWorkerSession(WorkerSettings(**settings), SECRET, ids(), shortest)
        )

    def answered(self, id: int, *body: bytes, status: int = 200) -> None:
        self.say(spec.FINAL, *body, id=id, code=status)


def question(id: int, *body: bytes) -> tuple[Any, ...]:
    fields = {"flags": spec.FAIL_FAST, "id": id, "ttl": 3000, "service": b"login"}
    return ("REQUEST", fields, *(body or (b"wes", b"secret")))


def hello(id: int, token: str) -> tuple[Any, ...]:
    return (
        "HELLO",
        {"flags": spec.METADATA, "id": id, "metadata": metadata.pack({"token": token})},
    )


READY = ("READY", {"code": 1, "service": b"echo"})


def test_worker_registers_when_it_has_a_token() -> None:
    worker = LoginScript()
    worker.connect()
    assert worker.said() == [question(1)]
    worker.answered(1, b"t1", b"900")
    assert worker.said() == [hello(2, "t1"), READY]
    worker.welcome()
    worker.request(7, b"x")
    worker.final(worker.job(), b"y")
    assert worker.said() == [("FINAL", {"code": 200, "id": spec.BROKER_ID_BIT + 7}, b"y")]


def test_token_is_renewed_while_the_worker_serves() -> None:
    worker = LoginScript()
    worker.connect()
    worker.answered(1, b"t1", b"6")
    worker.said()
    worker.pass_time(4.1)
    assert question(3, b"t1") in worker.said()
    worker.answered(3, b"t2", b"6")
    assert worker.said() == [hello(4, "t2")]


def test_refused_hello_takes_a_new_connection_and_a_new_token() -> None:
    worker = LoginScript()
    worker.connect()
    worker.answered(1, b"t1", b"900")
    worker.said()
    worker.answered(2, b"revoked", status=401)
    assert (worker.said(), worker.renewals) == ([("DISCONNECT", {})], [0])
    worker.connect()
    assert worker.said() == [question(3)]
    worker.answered(3, b"t2", b"900")
    assert worker.said() == [hello(4, "t2"), READY]


def test_subscription_behind_a_refused_hello_is_kept_and_sent_again_with_a_new_token() -> None:
    worker = LoginScript()
    worker.session.subscribe(b"news.>", worker.now)
    worker.connect()
    worker.answered(1, b"t1", b"900")
    worker.out()
    worker.cut()
    worker.pass_time(1)
    worker.connect()
    greeting, _, subscribe = worker.said()
    refused = [mdp03.pack(spec.FINAL, id=greeting[1]["id"], code=401), b"revoked"]
    worker.session.receive(refused, worker.now)
    worker.answered(subscribe[1]["id"], b"revoked", status=401)
    worker.said()
    worker.pass_time(1)
    worker.connect()
    asked = worker.said()[-1]
    worker.answered(asked[1]["id"], b"t2", b"900")
    assert [word[0] for word in worker.said()] == ["HELLO", "READY", "SUBSCRIBE"]
    assert worker.events() == []


def test_refused_login_is_tried_again_later() -> None:
    worker = LoginScript()
    worker.connect()
    worker.answered(1, b"wrong password", status=401)
    worker.said()
    worker.pass_time(0.4)
    assert worker.said() == []
    worker.pass_time(0.7)
    assert worker.said() == [question(2)]


def test_token_is_good_on_the_next_connection_too() -> None:
    worker = LoginScript()
    worker.connect()
    worker.answered(1, b"t1", b"900")
    worker.cut()
    worker.pass_time(1)
    worker.said()
    worker.connect()
    assert worker.said() == [hello(3, "t1"), READY]


def test_service_that_is_added_before_the_token_is_registered_with_it() -> None:
    worker = LoginScript()
    worker.connect()
    worker.session.add_service(b"time", worker.now)
    worker.said()
    worker.answered(1, b"t1", b"900")
    assert worker.said() == [hello(2, "t1"), READY, ("READY", {"code": 1, "service": b"time"})]


def test_worker_of_an_older_dialect_cannot_log_in() -> None:
    with pytest.raises(LocalProtocolError, match="not-in-dialect"):
        LoginScript(dialect=Dialect.MDP02)


def test_refused_event_is_not_taken_for_an_answer_to_the_login() -> None:
    worker = LoginScript()
    worker.connect()
    worker.answered(1, b"t1", b"900")
    worker.welcome()
    worker.said()
    worker.session.publish(b"news", [b"x"], worker.now)
    worker.turn()
    ((command, fields, _),) = worker.said()
    assert command == "EVENT"
    worker.answered(fields["id"], b"may not", status=403)
    ((event),) = worker.events()
    assert (event.name, event.status) == (b"news", 403)
