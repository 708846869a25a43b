"""Rights, tenants and identities where hooks say who asks: the rules are asked after them, by the
names of the groups that they have found."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from majordomus.core.broker.hooks.actions import FORWARD, Action, Redirect, Reject
from majordomus.core.broker.hooks.holding import Silent
from majordomus.core.broker.hooks.views import ClientInfo, HookRequest
from majordomus.core.broker.state.access_rules import CALL, MANAGE, SERVE, SUBSCRIBE, Rights, Rule
from majordomus.protocol import metadata, spec
from tests.core.broker_harness import House, final

C, W = b"client-c", b"worker-w"
RULES = (
    Rule(True, frozenset((CALL, SERVE, SUBSCRIBE)), users=("ann", "wes"), source="rule 1"),
    Rule(True, frozenset((CALL,)), names=("login",), source="rule 2"),
    Rule(True, frozenset((MANAGE,)), groups=("acme",), source="rule 3"),
)


class Tokens(Silent):
    """Hooks for which a token is its user's name, a slash and its groups."""

    asks = greets = True

    def __init__(self) -> None:
        self.until = float("inf")

    def on_request(self, number: int, request: HookRequest) -> Action:
        if request.service == "login":
            return Redirect("auth")
        if request.token:
            request.user, request.groups = read(request.token)
        return FORWARD

    def on_client(self, number: int, client: ClientInfo) -> Action:
        if not client.present:
            return FORWARD
        if client.token == "bad":  # noqa: S105
            return Reject(401, "bad token")
        if client.token:
            client.user, client.groups = read(client.token)
            client.until = self.until
        return FORWARD


def read(token: str) -> tuple[str, tuple[str, ...]]:
    user, *groups = token.split("/")
    return user, tuple(groups)


def said(token: str) -> dict[str, object]:
    return {"flags": spec.METADATA, "metadata": metadata.pack({"token": token})}


@pytest.fixture
def hooks() -> Tokens:
    return Tokens()


@pytest.fixture
def house(make_house: Callable[..., House], hooks: Tokens) -> House:
    made = make_house()
    made.machine.use(hooks)
    made.machine.set_rights(Rights(RULES, {"acme": "acme."}), made.now)
    return made


def worker(house: House, token: str, name: bytes = b"echo") -> None:
    house.say(W, spec.HELLO, **said(token))
    house.worker(W, name, 9)
    house.said()


def test_rules_are_asked_for_who_the_hook_says(house: House) -> None:
    worker(house, "wes")
    house.request(C, 1, b"x", **said("ann"))
    ((peer, command, *_),) = house.words()
    assert (peer, command) == (W, "REQUEST")
    house.request(C, 2, b"x", **said("joe"))
    house.request(C, 3, b"x")
    unknown = b"who you are is not known, and not everybody may call 'echo'"
    assert house.words() == [
        final(C, 2, b"'joe' may not call 'echo'", status=403),
        final(C, 3, unknown, status=401),
    ]


def test_token_never_reaches_the_worker_and_the_user_does(house: House) -> None:
    worker(house, "wes")
    house.request(C, 1, b"x", **said("ann"))
    ((_, _, fields, _),) = house.words()
    assert metadata.split(fields["metadata"], fields["flags"]) == (
        {"attempt": 1, "user": "ann"},
        {},
    )


def test_tenant_that_a_hook_names_reaches_its_own_services(house: House) -> None:
    worker(house, "wes/acme")
    assert set(house.machine.registry.services) == {b"acme.echo"}
    house.request(C, 1, b"x", **said("ann/acme"))
    ((peer, command, fields, _),) = house.words()
    assert (peer, command, fields["service"]) == (W, "REQUEST", b"echo")
    house.request(
        C, 2, b"x", flags=spec.METADATA | spec.FAIL_FAST, metadata=said("ann")["metadata"]
    )
    assert house.finals() == [
        (C, 2, 503, [b"no worker serves 'echo'; serving now: acme.echo"]),
    ]
    assert set(house.machine.registry.services) == {b"acme.echo"}


def test_tenant_that_a_hook_names_may_ask_for_one_worker(house: House) -> None:
    worker(house, "wes/acme")
    house.request(C, 1, b"x", address=W, **said("ann/acme"))
    assert [word[:2] for word in house.words()] == [(W, "REQUEST")]
    house.request(C, 2, b"x", address=W, **said("ann"))
    house.request(C, 3, b"x", address=b"nobody", **said("ann/acme"))
    assert (
        house.finals()
        == [
            (C, 3, 404, [b"no worker 6e6f626f6479 serves 'echo'"]),
            (C, 2, 404, [b"no worker 776f726b65722d77 serves 'echo'"]),
        ][::-1]
    )


def test_tenant_that_a_hook_names_sees_its_own_services_alone(house: House) -> None:
    worker(house, "wes/acme")
    house.request(C, 1, service=b"mmi.services", **said("ann/acme"))
    ((_, _, status, body),) = house.finals()
    assert (status, body[0]) == (200, b"200")
    assert b'"service":"echo"' in body[1]


def test_login_is_redirected_to_a_service_that_its_client_may_not_call(house: House) -> None:
    worker(house, "wes", b"auth")
    house.request(C, 1, b"ann", b"secret", service=b"login")
    ((peer, command, fields, body),) = house.words()
    assert (peer, command, fields["service"]) == (W, "REQUEST", b"auth")
    assert body == [b"ann", b"secret"]
    house.request(C, 2, b"x", service=b"auth")
    assert [status for _, _, status, _ in house.finals()] == [401]


def test_refused_hello_is_told_and_bars_the_connection(house: House) -> None:
    house.say(C, spec.HELLO, id=7, **said("bad"))
    house.request(C, 8, b"x")
    assert house.finals() == [(C, 7, 401, [b"bad token"]), (C, 8, 401, [b"bad token"])]
    house.say(C, spec.READY, service=b"echo", code=1)
    assert [word[1] for word in house.words()] == ["DISCONNECT"]


def test_identity_that_was_said_for_a_time_ends_with_it(house: House, hooks: Tokens) -> None:
    hooks.until = house.now + 5
    house.say(C, spec.HELLO, **said("ann"))
    house.say(C, spec.SUBSCRIBE, service=b"news")
    worker(house, "wes")
    house.pass_time(4)
    peers = house.machine.registry.peers
    assert (peers[C].user, peers[W].user) == ("ann", "wes")
    house.pass_time(1.1)
    assert (peers[C].user, C in peers, W in peers) == ("", True, False)
    assert len(house.machine.registry.topics) == 0
    assert (W, "DISCONNECT") in [word[:2] for word in house.words()]


def test_identity_that_is_said_again_lasts_on(house: House, hooks: Tokens) -> None:
    hooks.until = house.now + 5
    house.say(C, spec.HELLO, **said("ann"))
    house.pass_time(4)
    hooks.until = house.now + 5
    house.say(C, spec.HELLO, **said("ann"))
    house.pass_time(4)
    assert house.machine.registry.peers[C].user == "ann"
    house.leave(C)
    assert not house.machine.authority.leases
    assert len(house.machine.authority.ends) == 0
