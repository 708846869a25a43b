"""Every combination of role, action and dialect at the broker: allowed or refused, as the table of
roles says, and told in the words that the dialect has."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import pytest

from majordomus.core.broker.state.access_rules import (
    ACTIONS,
    CALL,
    MANAGE,
    PUBLISH,
    SERVE,
    SUBSCRIBE,
    AccessRules,
    Rule,
)
from majordomus.protocol import mdp03, metadata, spec
from majordomus.protocol.spec import Dialect
from tests import headers
from tests.core import dialects
from tests.core.broker_harness import BrokerHarness, disconnect, final, number
from tests.core.dialects import ask, ready

MDP03, DELPHI = Dialect.MDP03, Dialect.DELPHI
LEGACY = [dialect for dialect in Dialect if dialect is not MDP03]
C, W = b"client-c", b"worker-w"

RULES: Final = (
    Rule(True, frozenset((CALL,)), names=("open",), source="rule 1"),
    Rule(True, frozenset((CALL,)), users=("ann",), names=("echo",), source="rule 2"),
    Rule(True, frozenset((SERVE,)), groups=("workers",), names=("e*", "open"), source="rule 3"),
    Rule(True, frozenset((CALL, SERVE, MANAGE)), groups=("admins",), source="rule 4"),
    Rule(False, frozenset(ACTIONS), users=("eve",), source="rule 5"),
    Rule(True, frozenset((PUBLISH, SUBSCRIBE)), groups=("admins",), source="rule 6"),
    Rule(True, frozenset((SUBSCRIBE,)), users=("ann",), names=("news.*",), source="rule 7"),
    Rule(True, frozenset((PUBLISH,)), groups=("workers",), names=("news.*",), source="rule 8"),
)
ROLES: Final[dict[str, tuple[str, tuple[str, ...], set[str]]]] = {
    "anonymous": ("", (), {"call open", "mmi.service open"}),
    "user": ("ann", (), {"call open", "call echo", "mmi.service open", "mmi.service echo"}),
    "worker": ("wes", ("workers",), {"call open", "serve echo", "serve open", "mmi.service open"}),
    "other": ("joe", ("guests",), {"call open", "mmi.service open"}),
    "admin": (
        "adm",
        ("guests", "admins"),
        {
            *("call open", "call echo", "call time", "serve echo", "serve open", "serve time"),
            *("mmi.service open", "mmi.service echo", "manage mmi.stats", "manage mmi.workers"),
        },
    ),
    "denied admin": ("eve", ("admins", "workers"), set()),
}
"""Role → user, groups, and everything of ACTS that it may do."""
ACTS: Final = (
    *("call open", "call echo", "call time", "serve echo", "serve open", "serve time"),
    *("mmi.service open", "mmi.service echo", "manage mmi.stats", "manage mmi.workers"),
    *("serve mmi.service", "serve titanic.request", "serve $log"),
)
TABLE: Final = [
    pytest.param(role, act, dialect, id=f"{role}-{act}-{dialect.value}")
    for role in ROLES
    for act in ACTS
    for dialect in Dialect
]


def introduce(harness: BrokerHarness, peer: bytes, role: str) -> None:
    """`peer` is connected, and known as who plays `role`."""
    user, groups, _ = ROLES[role]
    if user:
        assert harness.machine.identify(peer, user, groups, harness.now)


def with_rules(
    make_harness: Callable[..., BrokerHarness], *rules: Rule, **tenants: str
) -> BrokerHarness:
    harness = make_harness(legacy_errors="reply")
    harness.machine.set_rights(AccessRules(rules or RULES, tenants), harness.now)
    return harness


@pytest.mark.parametrize(("role", "act", "dialect"), TABLE)
def test_role_may_do_what_the_table_says_and_nothing_else(
    make_harness: Callable[..., BrokerHarness], role: str, act: str, dialect: Dialect
) -> None:
    harness = with_rules(make_harness)
    introduce(harness, W, "admin")
    for name in (b"open", b"echo", b"time"):
        harness.worker(W, name, 9)
    harness.sent()
    harness.facts.clear()
    introduce(harness, C, role)
    kind, name = act.split()
    allowed = act in ROLES[role][2]
    if kind == "serve":
        harness.receive(C, *ready(dialect, name.encode()))
        assert (C in harness.machine.registry.workers) is allowed
        judge_claim(harness, role, dialect, name, allowed)
        return
    if kind == "mmi.service":
        harness.receive(C, *ask(dialect, b"mmi.service", [name.encode()]))
    else:
        body = [] if name == "mmi.workers" else [b"x"]
        harness.receive(C, *ask(dialect, name.encode(), body))
    judge_request(harness, role, act, dialect, allowed)


def judge_claim(
    harness: BrokerHarness, role: str, dialect: Dialect, name: str, allowed: bool
) -> None:
    words = harness.messages()
    if allowed:
        assert ("worker-ready" in dict(harness.facts)) and disconnect(C) not in words
        return
    reserved = name.startswith(("mmi.", "titanic.", "$"))
    if dialect is not MDP03:
        assert words == [(C, *dialects.farewell(dialect))]
    else:
        ((peer, command, fields, body),) = words
        assert (peer, command, body) == (C, "DISCONNECT", [])
        told = metadata.unpack(fields["metadata"])
        status, text = status_of(role), sentence(role, "serve", name)
        if reserved:
            status, text = 403, f"'{name}' is reserved: no worker may serve it"
        assert told == {"status": status, "reason": text, "service": name}
    reason = "reserved-service-name" if reserved else "may-not-serve"
    assert harness.counts.dropped == {reason: 1}


def judge_request(
    harness: BrokerHarness, role: str, act: str, dialect: Dialect, allowed: bool
) -> None:
    kind, name = act.split()
    words = harness.messages()
    if allowed and kind == "call":
        assert [word[:2] for word in words] == [(W, "REQUEST")]
        assert harness.counts.refused == {}
        return
    (word,) = words
    if dialect is MDP03:
        status, body = word[2]["code"], word[3]
    elif allowed:
        status, body = 200, list(word)
    else:
        body = [frame for frame in word if isinstance(frame, bytes)]
        at = body.index(str(status_of(role)).encode())
        status, body = int(body[at]), body[at + 1 :]
    if allowed:
        assert status == 200 and b"200" in body
        assert harness.counts.refused == {}
    else:
        assert status == status_of(role)
        action = "call" if kind == "mmi.service" else kind
        assert body[0] == sentence(role, action, name).encode()
        assert harness.counts.refused == {status: 1}
        ((_fact, data),) = [one for one in harness.facts if one[0] == "not-allowed"]
        assert (data["user"], data["action"], data["name"]) == (
            ROLES[role][0],
            action,
            name.encode(),
        )
        assert "rule 5 denies it" in str(data["why"]) or "no rule allows it" in str(data["why"])


MAY_TELL: Final[dict[str, set[str]]] = {
    "anonymous": set(),
    "user": {"subscribe news.sport", "subscribe news.>"},
    "worker": {"publish news.sport"},
    "other": set(),
    "admin": {
        *("publish news.sport", "publish staff", "subscribe news.sport", "subscribe news.>"),
        *("subscribe >", "subscribe *.sport"),
    },
    "denied admin": set(),
}
"""Role → what it may publish and subscribe, of TELLS. Only MDP/0.3 has words for that."""
TELLS: Final = (
    *("publish news.sport", "publish staff", "subscribe news.sport", "subscribe news.>"),
    *("subscribe >", "subscribe *.sport"),
)


@pytest.mark.parametrize("tell", TELLS)
@pytest.mark.parametrize("role", ROLES)
def test_role_may_publish_and_subscribe_what_the_table_says(
    make_harness: Callable[..., BrokerHarness], role: str, tell: str
) -> None:
    harness = with_rules(make_harness)
    introduce(harness, W, "admin")
    introduce(harness, C, role)
    action, name = tell.split()
    teller, hearer, pattern = (W, C, name) if action == "subscribe" else (C, W, ">")
    topic = {">": "news.sport", "news.>": "news.sport", "*.sport": "news.sport"}.get(name, name)
    for peer in (W, C):
        harness.receive_03(peer, spec.HELLO)
    harness.sent()
    harness.receive_03(hearer, spec.SUBSCRIBE, id=1, service=pattern.encode())
    harness.receive_03(teller, spec.EVENT, b"hear", id=2, service=topic.encode())
    words = harness.messages()
    if tell in MAY_TELL[role]:
        assert words == [(hearer, "EVENT", {"service": topic.encode()}, [b"hear"])]
    else:
        id = 1 if action == "subscribe" else 2
        text = sentence(role, action, name).encode()
        assert words == [final(C, id, text, status=status_of(role))]


def test_subscription_ends_when_its_right_is_gone(
    make_harness: Callable[..., BrokerHarness],
) -> None:
    harness = with_rules(make_harness)
    introduce(harness, W, "admin")
    introduce(harness, C, "user")
    harness.receive_03(C, spec.HELLO)
    for pattern in (b"news.>", b"news.sport"):
        harness.receive_03(C, spec.SUBSCRIBE, service=pattern)
    harness.machine.set_rights(
        AccessRules([*RULES[:6], RULES[6]._replace(names=("news.s*",))]), harness.now
    )
    harness.sent()
    harness.receive_03(W, spec.EVENT, b"1", service=b"news.sport")
    harness.receive_03(W, spec.EVENT, b"2", service=b"news.world")
    assert harness.messages() == [(C, "EVENT", {"service": b"news.sport"}, [b"1"])]
    harness.machine.set_rights(AccessRules(RULES[:6]), harness.now)
    harness.receive_03(W, spec.EVENT, b"3", service=b"news.sport")
    assert harness.messages() == []


def test_session_that_comes_back_after_its_right_is_gone_hears_nothing(
    make_harness: Callable[..., BrokerHarness],
) -> None:
    harness = with_rules(make_harness)
    introduce(harness, W, "admin")
    introduce(harness, C, "user")
    session = metadata.pack({"session": bytes(16)})
    harness.receive_03(C, spec.HELLO, flags=spec.METADATA, metadata=session)
    harness.receive_03(C, spec.SUBSCRIBE, service=b"news.>")
    harness.lose_connection(C)
    harness.machine.set_rights(AccessRules(RULES[:6]), harness.now)
    introduce(harness, b"again", "user")
    harness.receive_03(b"again", spec.HELLO, flags=spec.METADATA, metadata=session)
    harness.sent()
    harness.receive_03(W, spec.EVENT, b"1", service=b"news.sport")
    assert harness.messages() == []
    assert len(harness.machine.registry.topics) == 0


def status_of(role: str) -> int:
    return 403 if ROLES[role][0] else 401


def sentence(role: str, action: str, name: str) -> str:
    user = ROLES[role][0]
    if not user:
        return f"authenticate first: anonymous peers may not {action} '{name}'"
    return f"'{user}' may not {action} '{name}'"


def test_legacy_client_that_may_not_is_counted_and_hears_nothing(
    make_harness: Callable[..., BrokerHarness],
) -> None:
    harness = make_harness()
    harness.machine.set_rights(AccessRules(RULES), harness.now)
    for dialect in LEGACY:
        harness.receive(dialect.value.encode(), *ask(dialect, b"echo", [b"x"]))
    assert harness.sent() == []
    assert (harness.counts.unanswered, harness.counts.refused) == (4, {401: 4})


def test_refusal_names_no_service_that_the_client_may_not_call(
    make_harness: Callable[..., BrokerHarness],
) -> None:
    harness = with_rules(make_harness)
    introduce(harness, W, "admin")
    for name in (b"secret", b"echo", b"time"):
        harness.worker(W, name)
    introduce(harness, C, "user")
    harness.sent()
    harness.request(C, 1, service=b"open", flags=spec.FAIL_FAST)
    assert harness.messages() == [
        final(C, 1, b"no worker serves 'open'; serving now: echo", status=503)
    ]
    harness.request(C, 2, service=b"secret", flags=spec.FAIL_FAST)
    harness.request(C, 3, service=b"ghost", flags=spec.FAIL_FAST)
    harness.request(C, 4, service=b"secret", address=b"no-such-worker")
    assert [status for _, _, status, _ in harness.finals()] == [403, 403, 403]
    assert b"ghost" not in harness.machine.registry.services


# ── a right that is taken away ────────────────────────────────────────────────────────────────────


def test_next_request_is_refused_when_the_right_is_gone(
    make_harness: Callable[..., BrokerHarness],
) -> None:
    harness = with_rules(make_harness)
    introduce(harness, W, "admin")
    introduce(harness, C, "user")
    harness.worker(W, capacity=9)
    harness.request(C, 1)
    harness.machine.set_rights(AccessRules(RULES[3:4]), harness.now)
    harness.sent()
    harness.request(C, 2)
    assert harness.finals() == [(C, 2, 403, [b"'ann' may not call 'echo'"])]
    harness.answer(W, number(1), b"was given before")
    assert harness.messages() == [final(C, 1, b"was given before", worker=W)]


def test_worker_whose_service_is_no_longer_its_own_is_sent_off_at_once(
    make_harness: Callable[..., BrokerHarness],
) -> None:
    harness = with_rules(make_harness)
    introduce(harness, W, "worker")
    introduce(harness, C, "user")
    harness.worker(W)
    harness.request(C, 1)
    harness.sent()
    harness.machine.set_rights(AccessRules(RULES[:2]), harness.now)
    harness.turn()
    ((peer, command, fields, _),) = harness.messages()
    assert (peer, command) == (W, "DISCONNECT")
    told = metadata.unpack(fields["metadata"])
    assert told == {"status": 403, "reason": "'wes' may not serve 'echo'"}
    assert W not in harness.machine.registry.workers
    harness.answer(W, number(1), b"from nobody")
    assert harness.messages() == [disconnect(W)]


def test_worker_that_may_still_serve_does_not_notice(
    make_harness: Callable[..., BrokerHarness],
) -> None:
    harness = with_rules(make_harness)
    introduce(harness, W, "worker")
    harness.worker(W)
    harness.sent()
    harness.machine.set_rights(AccessRules(RULES[2:3]), harness.now)
    harness.machine.set_rights(None, harness.now)
    harness.turn()
    assert harness.messages() == []
    assert W in harness.machine.registry.workers


# ── tenants ───────────────────────────────────────────────────────────────────────────────────────

TENANTS: Final = {"acme": "acme.", "umbrella": "u."}
FREE: Final = Rule(True, frozenset((CALL, SERVE, MANAGE)), source="rule 1")


def tenant(harness: BrokerHarness, peer: bytes, group: str) -> None:
    assert harness.machine.identify(peer, peer.decode(), (group,), harness.now)


@pytest.mark.parametrize("client", Dialect)
@pytest.mark.parametrize("worker", Dialect)
def test_tenants_call_the_same_name_and_never_meet(
    make_harness: Callable[..., BrokerHarness], client: Dialect, worker: Dialect
) -> None:
    harness = with_rules(make_harness, FREE, **TENANTS)
    for peer, group in ((W, "acme"), (b"other-w", "umbrella")):
        tenant(harness, peer, group)
        harness.receive(peer, *ready(worker, b"echo"))
    assert set(harness.machine.registry.services) == {b"acme.echo", b"u.echo"}
    tenant(harness, C, "acme")
    harness.sent()
    harness.receive(C, *ask(client, b"echo", [b"x"]))
    handle = harness.machine.registry.peers[C].handle
    (dispatch,) = harness.machine.registry.workers[W].held
    address = handle if client is worker is DELPHI else dispatch.to_bytes(8, "big")
    asked = dialects.asked(worker, address, [b"x"], dispatch, b"echo", handle)
    if worker is MDP03:
        told = metadata.pack({"attempt": 1, "user": "client-c"})
        plain = headers.parse(asked[0])
        fields = (spec.REQUEST, spec.BROKER_METADATA, *plain[2:7], told)
        asked[0] = mdp03.pack(*fields)
    assert harness.sent() == [(W, asked)]
    harness.receive(W, *dialects.end(worker, b"echo", address, [b"y"], dispatch))
    assert harness.sent() == [(C, dialects.end_heard(client, b"echo", [b"y"], W))]


def test_tenant_is_told_of_its_own_services_by_their_own_names(
    make_harness: Callable[..., BrokerHarness],
) -> None:
    harness = with_rules(make_harness, FREE, **TENANTS)
    tenant(harness, W, "acme")
    tenant(harness, b"other-w", "umbrella")
    tenant(harness, C, "acme")
    harness.worker(W)
    harness.worker(b"other-w")
    harness.worker(b"other-w", b"time")

    def asked(name: bytes, *body: bytes) -> Any:
        harness.sent()
        harness.request(C, 1, *body, service=name)
        ((_, _, status, frames),) = harness.finals()
        assert (status, frames[0][:1]) in ((200, b"2"), (200, b"4"))
        return json.loads(frames[1]) if frames[1:] else frames[0]

    assert asked(b"mmi.service", b"echo") == b"200"
    assert asked(b"mmi.service", b"time") == b"404"
    assert asked(b"mmi.service", b"u.echo") == b"404"
    assert [row["service"] for row in asked(b"mmi.services")] == ["echo"]
    (row,) = asked(b"mmi.workers")
    assert (row["id"], row["services"]) == (W.hex(), ["echo"])
    assert asked(b"mmi.workers", b"time") == []


def test_sentences_show_a_tenant_its_own_names(make_harness: Callable[..., BrokerHarness]) -> None:
    harness = with_rules(make_harness, FREE, **TENANTS)
    tenant(harness, W, "acme")
    tenant(harness, b"other-w", "umbrella")
    harness.worker(W)
    harness.worker(b"other-w", b"time")
    tenant(harness, C, "acme")
    harness.sent()
    harness.request(C, 1, service=b"time", flags=spec.FAIL_FAST)
    harness.request(C, 2, service=b"time", ttl=1000)
    harness.request(C, 3, service=b"echo", address=b"other-w")
    harness.pass_time(1.1)
    texts = {id: (status, *body) for _, id, status, body in harness.finals()}
    assert texts == {
        1: (503, b"no worker serves 'time'; serving now: echo"),
        2: (503, b"no worker for service 'time' came within 1 s; serving now: echo"),
        3: (404, b"no worker 6f746865722d77 serves 'echo'"),
    }


def test_name_that_a_prefix_makes_too_long_is_refused(
    make_harness: Callable[..., BrokerHarness],
) -> None:
    harness = with_rules(make_harness, FREE, **TENANTS)
    tenant(harness, C, "acme")
    harness.request(C, 1, service=b"n" * 251)
    harness.receive_03(C, spec.READY, service=b"n" * 251, code=1)
    words = harness.messages()
    assert [word[1] for word in words] == ["FINAL", "DISCONNECT"]
    assert words[0][2]["code"] == 400


def test_worker_that_becomes_another_tenants_registers_anew(
    make_harness: Callable[..., BrokerHarness],
) -> None:
    harness = with_rules(make_harness, FREE, **TENANTS)
    tenant(harness, W, "acme")
    harness.worker(W)
    harness.sent()
    tenant(harness, W, "umbrella")
    harness.turn()
    assert [word[:2] for word in harness.messages()] == [(W, "DISCONNECT")]
    assert harness.machine.registry.services == {}
