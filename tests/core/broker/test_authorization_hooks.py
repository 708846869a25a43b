"""Rights, tenants and identities where hooks say who asks: the rules are asked after them, by the
names of the groups that they have found."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from majordomus.core.broker.hooks.actions import FORWARD, Action, Redirect, Reject
from majordomus.core.broker.hooks.interface import NoHooks
from majordomus.core.broker.hooks.views import ClientInfo, HookRequest
from majordomus.core.broker.state.access_rules import (
    CALL,
    MANAGE,
    SERVE,
    SUBSCRIBE,
    AccessRules,
    Rule,
)
from majordomus.protocol import metadata, spec
from tests.core.broker_harness import BrokerHarness, final

C, W = b"client-c", b"worker-w"
RULES = (
    Rule(True, frozenset((CALL, SERVE, SUBSCRIBE)), users=("ann", "wes"), source="rule 1"),
    Rule(True, frozenset((CALL,)), names=("login",), source="rule 2"),
    Rule(True, frozenset((MANAGE,)), groups=("acme",), source="rule 3"),
)


class Tokens(NoHooks):
    """Hooks for which a token is its user's name, a slash and its groups."""

    has_on_request = has_on_client = True

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
def harness(make_harness: Callable[..., BrokerHarness], hooks: Tokens) -> BrokerHarness:
    made = make_harness()
    made.machine.use(hooks)
    made.machine.set_rights(AccessRules(RULES, {"acme": "acme."}), made.now)
    return made


def worker(harness: BrokerHarness, token: str, name: bytes = b"echo") -> None:
    harness.receive_03(W, spec.HELLO, **said(token))
    harness.worker(W, name, 9)
    harness.sent()


def test_rules_are_asked_for_who_the_hook_says(harness: BrokerHarness) -> None:
    worker(harness, "wes")
    harness.request(C, 1, b"x", **said("ann"))
    ((peer, command, *_),) = harness.messages()
    assert (peer, command) == (W, "REQUEST")
    harness.request(C, 2, b"x", **said("joe"))
    harness.request(C, 3, b"x")
    unknown = b"authenticate first: anonymous peers may not call 'echo'"
    assert harness.messages() == [
        final(C, 2, b"'joe' may not call 'echo'", status=403),
        final(C, 3, unknown, status=401),
    ]


def test_token_never_reaches_the_worker_and_the_user_does(harness: BrokerHarness) -> None:
    worker(harness, "wes")
    harness.request(C, 1, b"x", **said("ann"))
    ((_, _, fields, _),) = harness.messages()
    assert metadata.split(fields["metadata"], fields["flags"]) == (
        {"attempt": 1, "user": "ann"},
        {},
    )


def test_tenant_that_a_hook_names_reaches_its_own_services(harness: BrokerHarness) -> None:
    worker(harness, "wes/acme")
    assert set(harness.machine.registry.services) == {b"acme.echo"}
    harness.request(C, 1, b"x", **said("ann/acme"))
    ((peer, command, fields, _),) = harness.messages()
    assert (peer, command, fields["service"]) == (W, "REQUEST", b"echo")
    harness.request(
        C, 2, b"x", flags=spec.METADATA | spec.FAIL_FAST, metadata=said("ann")["metadata"]
    )
    assert harness.finals() == [
        (C, 2, 503, [b"no worker serves 'echo'; serving now: acme.echo"]),
    ]
    assert set(harness.machine.registry.services) == {b"acme.echo"}


def test_tenant_that_a_hook_names_may_ask_for_one_worker(harness: BrokerHarness) -> None:
    worker(harness, "wes/acme")
    harness.request(C, 1, b"x", address=W, **said("ann/acme"))
    assert [word[:2] for word in harness.messages()] == [(W, "REQUEST")]
    harness.request(C, 2, b"x", address=W, **said("ann"))
    harness.request(C, 3, b"x", address=b"nobody", **said("ann/acme"))
    assert (
        harness.finals()
        == [
            (C, 3, 404, [b"no worker 6e6f626f6479 serves 'echo'"]),
            (C, 2, 404, [b"no worker 776f726b65722d77 serves 'echo'"]),
        ][::-1]
    )


def test_tenant_that_a_hook_names_sees_its_own_services_alone(harness: BrokerHarness) -> None:
    worker(harness, "wes/acme")
    harness.request(C, 1, service=b"mmi.services", **said("ann/acme"))
    ((_, _, status, body),) = harness.finals()
    assert (status, body[0]) == (200, b"200")
    assert b'"service":"echo"' in body[1]


def test_login_is_redirected_to_a_service_that_its_client_may_not_call(
    harness: BrokerHarness,
) -> None:
    worker(harness, "wes", b"auth")
    harness.request(C, 1, b"ann", b"secret", service=b"login")
    ((peer, command, fields, body),) = harness.messages()
    assert (peer, command, fields["service"]) == (W, "REQUEST", b"auth")
    assert body == [b"ann", b"secret"]
    harness.request(C, 2, b"x", service=b"auth")
    assert [status for _, _, status, _ in harness.finals()] == [401]


def test_refused_hello_is_told_and_bars_the_connection(harness: BrokerHarness) -> None:
    harness.receive_03(C, spec.HELLO, id=7, **said("bad"))
    harness.request(C, 8, b"x")
    assert harness.finals() == [(C, 7, 401, [b"bad token"]), (C, 8, 401, [b"bad token"])]
    harness.receive_03(C, spec.READY, service=b"echo", code=1)
    assert [word[1] for word in harness.messages()] == ["DISCONNECT"]


def test_identity_that_was_said_for_a_time_ends_with_it(
    harness: BrokerHarness, hooks: Tokens
) -> None:
    hooks.until = harness.now + 5
    harness.receive_03(C, spec.HELLO, **said("ann"))
    harness.receive_03(C, spec.SUBSCRIBE, service=b"news")
    worker(harness, "wes")
    harness.pass_time(4)
    peers = harness.machine.registry.peers
    assert (peers[C].user, peers[W].user) == ("ann", "wes")
    harness.pass_time(1.1)
    assert (peers[C].user, C in peers, W in peers) == ("", True, False)
    assert len(harness.machine.registry.topics) == 0
    assert (W, "DISCONNECT") in [word[:2] for word in harness.messages()]


def test_identity_that_is_said_again_lasts_on(harness: BrokerHarness, hooks: Tokens) -> None:
    hooks.until = harness.now + 5
    harness.receive_03(C, spec.HELLO, **said("ann"))
    harness.pass_time(4)
    hooks.until = harness.now + 5
    harness.receive_03(C, spec.HELLO, **said("ann"))
    harness.pass_time(4)
    assert harness.machine.registry.peers[C].user == "ann"
    harness.leave(C)
    assert not harness.machine.authorization.leases
    assert len(harness.machine.authorization.ends) == 0
