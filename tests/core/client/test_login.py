"""A client that logs in: nothing leaves before the token is there, the token goes with everything,
is renewed in time, and asked for anew when the broker does not accept it."""

from __future__ import annotations

from typing import Any

import pytest

from majordomus.core.client.login import MOST_METADATA, LoginSession
from majordomus.core.client.session import ClientSettings
from majordomus.core.session.login import LOGIN, Credentials, Login, LoginState
from majordomus.errors import LocalProtocolError
from majordomus.protocol import mdp03, metadata, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.session_harness import (
    FIRST_REST,
    ClientScript,
    Script,
    answer,
    asked,
    ids,
    shortest,
)

SECRET = Credentials([b"ann", b"secret"])
LOGIN_TTL = 3000


class LoginScript(ClientScript):
    """A client's session with credentials."""

    def __init__(self, **settings: Any) -> None:
        settings = {"retry_first": 2 * FIRST_REST, **settings}
        session = LoginSession(ClientSettings(**settings), SECRET, ids(), shortest)
        Script.__init__(self, session)
        self.login: Login = session.login

    def approve(self, id: int, token: bytes = b"t1", seconds: bytes = b"900") -> None:
        self.final(id, token, seconds)


def question(id: int, *body: bytes) -> tuple[Any, ...]:
    fields = {"flags": spec.FAIL_FAST, "id": id, "ttl": LOGIN_TTL, "service": b"login"}
    return ("REQUEST", fields, *(body or (b"ann", b"secret")))


def call_word(id: int, *body: bytes, said: str = "t1", ttl: int = 5000) -> tuple[Any, ...]:
    fields = {
        "flags": spec.METADATA,
        "id": id,
        "ttl": ttl,
        "service": b"echo",
        "metadata": metadata.pack({"token": said}),
    }
    return ("REQUEST", fields, *body)


def hello_word(id: int, token: str, session: bytes) -> tuple[Any, ...]:
    field = metadata.pack({"session": session, "token": token})
    return ("HELLO", {"flags": spec.METADATA, "id": id, "metadata": field})


def test_call_waits_for_the_token_and_carries_it() -> None:
    client = LoginScript()
    client.call(b"x")
    client.connect()
    assert client.said() == [question(2)]
    client.approve(2)
    assert client.said() == [call_word(1, b"x")]
    client.call(b"y")
    assert client.said() == [call_word(3, b"y")]
    client.final(1, b"X")
    client.final(3, b"Y")
    assert [event.frames for event in client.events()] == [[b"X"], [b"Y"]]


def test_calls_own_metadata_stay_beside_the_token() -> None:
    client = LoginScript()
    client.connect()
    client.approve(1)
    client.said()
    client.call(b"x", metadata=metadata.pack({"type": "text/plain"}), to=b"worker")
    ((_, fields, *_),) = client.said()
    assert metadata.unpack(fields["metadata"]) == {"type": "text/plain", "token": "t1"}
    assert fields["address"] == b"worker"
    with pytest.raises(LocalProtocolError, match="long-metadata"):
        client.call(b"x", metadata=b"m" * (MOST_METADATA + 1))


def test_client_with_presence_sends_the_token_with_hello_alone() -> None:
    client = LoginScript(presence=True)
    client.call(b"x")
    client.connect()
    assert client.said() == [question(2)]
    client.approve(2)
    session = client.session._id
    hello, call = client.said()
    assert hello == hello_word(3, "t1", session)
    assert call == ("REQUEST", {"id": 1, "ttl": 5000, "service": b"echo"}, b"x")


def test_client_that_becomes_present_later_sends_hello_with_its_token() -> None:
    client = LoginScript()
    client.connect()
    client.session.set_presence(client.now)
    client.turn()
    assert client.said() == [question(1)]
    client.approve(1)
    assert client.said() == [hello_word(2, "t1", client.session._id)]
    client.call(b"x")
    assert client.said() == [("REQUEST", {"id": 3, "ttl": 5000, "service": b"echo"}, b"x")]


def test_token_is_renewed_after_two_thirds_of_its_life_and_calls_go_on() -> None:
    client = LoginScript()
    client.connect()
    client.approve(1, b"t1", b"900")
    client.said()
    client.pass_time(599)
    assert client.said() == []
    client.pass_time(2)
    assert client.said() == [question(2, b"t1")]
    client.call(b"x")
    assert client.said() == [call_word(3, b"x")]
    client.approve(2, b"t2")
    client.call(b"y")
    assert client.said() == [call_word(4, b"y", said="t2")]


def test_present_client_sends_hello_again_with_the_new_token() -> None:
    client = LoginScript(presence=True, interval=10_000.0)
    client.connect()
    client.approve(1, b"t1", b"90")
    client.said()
    client.pass_time(61)
    assert client.said() == [question(3, b"t1")]
    client.approve(3, b"t2")
    assert client.said() == [hello_word(4, "t2", client.session._id)]


def test_refused_renewal_logs_in_with_the_credentials() -> None:
    client = LoginScript()
    client.connect()
    client.approve(1, b"t1", b"90")
    client.said()
    client.pass_time(61)
    client.said()
    client.final(2, b"revoked", status=401)
    assert client.said() == [question(3)]


def test_renewal_without_an_answer_is_tried_until_the_token_has_expired() -> None:
    client = LoginScript()
    client.connect()
    client.approve(1, b"t1", b"90")
    client.said()
    client.pass_time(85)
    questions = client.said()
    assert len(questions) > 2
    assert all(word[0] == "REQUEST" and word[2:] == (b"t1",) for word in questions)
    assert client.login.has_token
    client.pass_time(10)
    assert client.said()[-1][2:] == (b"ann", b"secret")
    assert not client.login.has_token


@pytest.mark.parametrize("status", [400, 401, 403])
def test_verdict_ends_the_calls_that_wait_and_those_of_the_next_moment(status: int) -> None:
    client = LoginScript()
    client.call(b"x")
    client.connect()
    client.final(2, b"wrong password", status=status)
    client.call(b"y")
    outcomes = [(event.call, event.status, event.frames) for event in client.events()]
    assert outcomes == [(1, status, [b"wrong password"]), (3, status, [b"wrong password"])]
    client.said()
    client.pass_time(1)
    assert client.said() == [question(4)]
    client.call(b"z")
    client.approve(4)
    assert client.said() == [call_word(5, b"z")]


def test_service_that_is_not_there_is_asked_again_and_named_when_the_call_expires() -> None:
    client = LoginScript()
    client.call(b"x", ttl=0.5)
    client.connect()
    client.said()
    client.final(2, b"no worker serves 'auth'", status=503)
    assert client.events() == []
    client.pass_time(0.2)
    assert client.said() == [question(3)]
    client.pass_time(0.4)
    (event,) = client.events()
    assert (event.status, event.frames) == (503, [b"no worker serves 'auth'"])


@pytest.mark.parametrize(
    "body",
    [
        *((), (b"t",), (b"", b"900"), (b"t", b"soon")),
        *((b"t", b"-1"), (b"t", b"nan"), (b"\xff", b"9")),
    ],
)
def test_answer_that_makes_no_sense_is_no_token(body: tuple[bytes, ...]) -> None:
    client = LoginScript()
    client.connect()
    client.said()
    client.final(1, *body)
    assert not client.login.has_token
    client.pass_time(0.2)
    assert client.said() == [question(2)]


def test_question_without_an_answer_is_asked_again() -> None:
    client = LoginScript()
    client.connect()
    client.said()
    client.pass_time(3.2)
    assert client.said() == [question(2)]
    client.approve(1, b"late")
    assert not client.login.has_token
    client.approve(2)
    assert client.login.has_token


def test_call_that_gets_401_is_sent_once_more_with_a_new_token() -> None:
    client = LoginScript()
    client.connect()
    client.approve(1)
    client.call(b"x", flags=spec.ONCE)
    client.said()
    client.final(2, b"the token was revoked", status=401)
    assert client.said() == [question(3)]
    assert client.events() == []
    client.approve(3, b"t2")
    ((_, fields, *_),) = client.said()
    assert metadata.unpack(fields["metadata"]) == {"token": "t2"}
    client.final(fields["id"], b"and again", status=401)
    (event,) = client.events()
    assert (event.call, event.status) == (2, 401)


def test_token_that_hello_brings_in_vain_is_asked_for_anew() -> None:
    client = LoginScript(presence=True)
    client.connect()
    client.approve(1)
    client.said()
    client.final(2, b"the token has expired", status=401)
    assert (client.said(), client.renewals) == ([("DISCONNECT", {})], [0])
    client.connect()
    assert client.said() == [question(3)]


def test_token_is_good_on_the_next_connection_too() -> None:
    client = LoginScript()
    client.connect()
    client.approve(1)
    client.cut()
    client.said()
    client.connect()
    client.call(b"x")
    assert client.said() == [call_word(2, b"x")]
    client.cut()
    client.pass_time(1000)
    client.connect()
    assert client.said()[0][2:] == (b"ann", b"secret")


def test_question_that_was_open_is_asked_again_on_the_next_connection() -> None:
    client = LoginScript()
    client.connect()
    client.cut()
    client.said()
    client.connect()
    assert client.said() == [question(2)]


@pytest.mark.parametrize("dialect", list(LEGACY))
def test_client_of_an_older_dialect_has_the_token_in_its_first_frame(dialect: Dialect) -> None:
    client = LoginScript(dialect=dialect)
    client.call(b"x")
    client.connect()
    assert client.said() == [asked(dialect, b"ann", b"secret", service=b"login")]
    client.hear(*answer(dialect, b"t1", b"900", service=b"login"))
    assert client.said() == [asked(dialect, b"t1", b"x")]
    client.hear(*answer(dialect, b"X"))
    assert [event.frames for event in client.events()] == [[b"X"]]


@pytest.mark.parametrize("dialect", list(LEGACY))
def test_refused_login_of_an_older_dialect_is_reported_with_its_status(
    dialect: Dialect,
) -> None:
    client = LoginScript(dialect=dialect)
    client.call(b"x")
    client.connect()
    client.hear(*answer(dialect, b"401", b"wrong password", service=b"login"))
    assert [(event.status, event.frames) for event in client.events()] == [
        (401, [b"wrong password"])
    ]


def test_silence_of_an_older_broker_takes_a_new_connection() -> None:
    client = LoginScript(dialect=Dialect.MDP02D)
    client.connect()
    client.said()
    client.pass_time(3.1)
    assert client.renewals == [0]


def test_credentials_are_not_in_representations() -> None:
    assert "secret" not in repr(SECRET)
    assert "secret" not in repr(LoginScript().session.settings)


def test_every_state_of_a_login_is_reached_and_every_event_listed() -> None:
    reached = {LoginState.OUT} | {after for pairs in LOGIN.values() for after in pairs.values()}
    assert reached == set(LoginState)


def test_subscription_waits_for_the_token_and_publishing_takes_on_presence() -> None:
    client = LoginScript()
    client.session.subscribe(b"news.>", client.now)
    client.connect()
    assert client.said() == [question(1)]
    client.session.subscribe(b"sport", client.now)
    client.turn()
    assert client.said() == []
    client.approve(1)
    words = client.said()
    assert [word[0] for word in words] == ["HELLO", "SUBSCRIBE", "SUBSCRIBE"]
    assert [word[1]["service"] for word in words[1:]] == [b"news.>", b"sport"]


def test_published_event_comes_after_hello() -> None:
    client = LoginScript()
    client.connect()
    client.approve(1)
    client.said()
    client.session.publish(b"news", [b"x"], client.now, ttl=5.0)
    client.turn()
    hello, event = client.said()
    assert hello[0] == "HELLO"
    assert (event[0], event[1]["service"], event[2:]) == ("EVENT", b"news", (b"x",))
    assert "metadata" not in event[1]


# a token that the broker refuses


def test_subscription_behind_a_refused_hello_is_kept_and_sent_again_with_a_new_token() -> None:
    client = LoginScript()
    client.session.subscribe(b"news.>", client.now)
    client.connect()
    client.approve(1)
    client.out()
    client.cut()
    client.connect()
    hello, subscribe = client.said()
    client.session.receive(
        [mdp03.pack(spec.FINAL, id=hello[1]["id"], code=401), b"expired"], client.now
    )
    client.final(subscribe[1]["id"], b"expired", status=401)
    assert client.events() == []
    client.out()
    client.connect()
    ((_, fields, *_),) = client.said()
    client.approve(fields["id"], b"t2")
    hello, subscribe = client.said()
    assert hello == hello_word(hello[1]["id"], "t2", client.session._id)
    assert (subscribe[0], subscribe[1]["service"]) == ("SUBSCRIBE", b"news.>")
    assert client.events() == []


def test_subscription_that_is_refused_with_the_new_token_too_ends() -> None:
    client = LoginScript()
    client.session.subscribe(b"news.>", client.now)
    client.connect()
    client.approve(1)
    for given in (b"t2", b"t3"):
        subscribe = client.said()[-1]
        client.final(subscribe[1]["id"], b"no", status=401)
        if given == b"t2":
            client.connect()
            ((_, fields, *_),) = [word for word in client.said() if word[0] == "REQUEST"]
            client.approve(fields["id"], given)
    assert [(event.status, event.name) for event in client.events()] == [(401, b"news.>")]


@pytest.mark.parametrize("dialect", list(LEGACY))
def test_call_of_an_older_dialect_after_the_tokens_life_logs_in_first(dialect: Dialect) -> None:
    """Nobody drives the session of an idle client: no timer has renewed the token."""
    client = LoginScript(dialect=dialect)
    client.connect()
    client.hear(*answer(dialect, b"t1", b"900", service=b"login"))
    client.said()
    client.now += 1000
    client.session.call(b"echo", [b"x"], client.now, ttl=5.0)
    client.turn()
    assert client.said() == [asked(dialect, b"ann", b"secret", service=b"login")]
    client.hear(*answer(dialect, b"t2", b"900", service=b"login"))
    assert client.said() == [asked(dialect, b"t2", b"x")]


@pytest.mark.parametrize("dialect", list(LEGACY))
def test_refused_token_that_an_older_broker_reports_is_replaced_and_the_call_sent_again(
    dialect: Dialect,
) -> None:
    client = LoginScript(dialect=dialect)
    client.connect()
    client.hear(*answer(dialect, b"t1", b"900", service=b"login"))
    client.said()
    client.call(b"x")
    client.said()
    client.hear(*answer(dialect, b"401", b"the token has expired"))
    assert client.said() == [asked(dialect, b"ann", b"secret", service=b"login")]
    client.hear(*answer(dialect, b"t2", b"900", service=b"login"))
    assert client.said() == [asked(dialect, b"t2", b"x")]
    client.hear(*answer(dialect, b"401", b"the token was revoked"))
    (event,) = client.events()
    assert (event.status, event.frames) == (401, [b"the token was revoked"])


@pytest.mark.parametrize("dialect", list(LEGACY))
@pytest.mark.parametrize(
    "reply",
    [
        [b"401", b"no such account"],
        [b"401"],
        [b"401", b"the token has expired", b""],
        [b"401", b"The token has expired"],
    ],
)
def test_reply_of_a_service_that_begins_with_401_is_the_callers(
    dialect: Dialect, reply: list[bytes]
) -> None:
    client = LoginScript(dialect=dialect)
    client.connect()
    client.hear(*answer(dialect, b"t1", b"900", service=b"login"))
    client.call(b"x")
    client.out()
    client.hear(*answer(dialect, *reply))
    assert client.said() == []
    (event,) = client.events()
    assert (event.status, event.frames) == (200, reply)


@pytest.mark.parametrize("dialect", list(LEGACY))
def test_call_of_an_older_dialect_that_got_no_answer_lets_the_next_one_log_in(
    dialect: Dialect,
) -> None:
    """A broker that refuses the token may say nothing, as after a rotation of its keys."""
    client = LoginScript(dialect=dialect)
    client.connect()
    client.hear(*answer(dialect, b"t1", b"900", service=b"login"))
    client.call(b"x", ttl=1.0)
    client.out()
    client.pass_time(1.1)
    assert [event.status for event in client.events()] == [408]
    client.connect()
    client.call(b"y")
    assert client.said() == [asked(dialect, b"ann", b"secret", service=b"login")]
    client.hear(*answer(dialect, b"t2", b"900", service=b"login"))
    assert client.said() == [asked(dialect, b"t2", b"y")]
