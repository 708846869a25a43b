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
    Rights,
    Rule,
)
from majordomus.protocol import mdp03, metadata, spec
from majordomus.protocol.spec import Dialect
from tests.core import dialects
from tests.core.broker_harness import House, disconnect, final, number
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


def introduce(house: House, peer: bytes, role: str) -> None:
    """`peer` is connected, and known as who plays `role`."""
    user, groups, _ = ROLES[role]
    if user:
        assert house.machine.identify(peer, user, groups, house.now)


def with_rules(make_house: Callable[..., House], *rules: Rule, **tenants: str) -> House:
    house = make_house(legacy_errors="reply")
    house.machine.set_rights(Rights(rules or RULES, tenants), house.now)
    return house


@pytest.mark.parametrize(("role", "act", "dialect"), TABLE)
def test_role_may_do_what_the_table_says_and_nothing_else(
    make_house: Callable[..., House], role: str, act: str, dialect: Dialect
) -> None:
    house = with_rules(make_house)
    introduce(house, W, "admin")
    for name in (b"open", b"echo", b"time"):
        house.worker(W, name, 9)
    house.said()
    house.facts.clear()
    introduce(house, C, role)
    kind, name = act.split()
    allowed = act in ROLES[role][2]
    if kind == "serve":
        house.hear(C, *ready(dialect, name.encode()))
        assert (C in house.machine.registry.workers) is allowed
        judge_claim(house, role, dialect, name, allowed)
        return
    if kind == "mmi.service":
        house.hear(C, *ask(dialect, b"mmi.service", [name.encode()]))
    else:
        body = [] if name == "mmi.workers" else [b"x"]
        house.hear(C, *ask(dialect, name.encode(), body))
    judge_request(house, role, act, dialect, allowed)


def judge_claim(house: House, role: str, dialect: Dialect, name: str, allowed: bool) -> None:
    words = house.words()
    if allowed:
        assert ("worker-ready" in dict(house.facts)) and disconnect(C) not in words
        return
    reserved = name.startswith(("mmi.", "titanic.", "$"))
    if reserved or dialect is not MDP03:
        told = disconnect(C) if dialect is MDP03 else (C, *dialects.farewell(dialect))
        assert words == [told]
    else:
        ((peer, command, fields, body),) = words
        assert (peer, command, body) == (C, "DISCONNECT", [])
        told = metadata.unpack(fields["metadata"])
        assert told == {"status": status_of(role), "reason": sentence(role, "serve", name)}
    reason = "reserved-service-name" if reserved else "may-not-serve"
    assert house.counts.dropped == {reason: 1}


def judge_request(house: House, role: str, act: str, dialect: Dialect, allowed: bool) -> None:
    kind, name = act.split()
    words = house.words()
    if allowed and kind == "call":
        assert [word[:2] for word in words] == [(W, "REQUEST")]
        assert house.counts.refused == {}
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
        assert house.counts.refused == {}
    else:
        assert status == status_of(role)
        action = "call" if kind == "mmi.service" else kind
        assert body[0] == sentence(role, action, name).encode()
        assert house.counts.refused == {status: 1}
        ((_fact, data),) = [one for one in house.facts if one[0] == "not-allowed"]
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
    make_house: Callable[..., House], role: str, tell: str
) -> None:
    house = with_rules(make_house)
    introduce(house, W, "admin")
    introduce(house, C, role)
    action, name = tell.split()
    teller, hearer, pattern = (W, C, name) if action == "subscribe" else (C, W, ">")
    topic = {">": "news.sport", "news.>": "news.sport", "*.sport": "news.sport"}.get(name, name)
    for peer in (W, C):
        house.say(peer, spec.HELLO)
    house.said()
    house.say(hearer, spec.SUBSCRIBE, id=1, service=pattern.encode())
    house.say(teller, spec.EVENT, b"hear", id=2, service=topic.encode())
    words = house.words()
    if tell in MAY_TELL[role]:
        assert words == [(hearer, "EVENT", {"service": topic.encode()}, [b"hear"])]
    else:
        id = 1 if action == "subscribe" else 2
        text = sentence(role, action, name).encode()
        assert words == [final(C, id, text, status=status_of(role))]


def test_subscription_ends_when_its_right_is_gone(make_house: Callable[..., House]) -> None:
    house = with_rules(make_house)
    introduce(house, W, "admin")
    introduce(house, C, "user")
    house.say(C, spec.HELLO)
    for pattern in (b"news.>", b"news.sport"):
        house.say(C, spec.SUBSCRIBE, service=pattern)
    house.machine.set_rights(Rights([*RULES[:6], RULES[6]._replace(names=("news.s*",))]), house.now)
    house.said()
    house.say(W, spec.EVENT, b"1", service=b"news.sport")
    house.say(W, spec.EVENT, b"2", service=b"news.world")
    assert house.words() == [(C, "EVENT", {"service": b"news.sport"}, [b"1"])]
    house.machine.set_rights(Rights(RULES[:6]), house.now)
    house.say(W, spec.EVENT, b"3", service=b"news.sport")
    assert house.words() == []


def test_session_that_comes_back_after_its_right_is_gone_hears_nothing(
    make_house: Callable[..., House],
) -> None:
    house = with_rules(make_house)
    introduce(house, W, "admin")
    introduce(house, C, "user")
    session = metadata.pack({"session": bytes(16)})
    house.say(C, spec.HELLO, flags=spec.METADATA, metadata=session)
    house.say(C, spec.SUBSCRIBE, service=b"news.>")
    house.lose_connection(C)
    house.machine.set_rights(Rights(RULES[:6]), house.now)
    introduce(house, b"again", "user")
    house.say(b"again", spec.HELLO, flags=spec.METADATA, metadata=session)
    house.said()
    house.say(W, spec.EVENT, b"1", service=b"news.sport")
    assert house.words() == []
    assert len(house.machine.registry.topics) == 0


def status_of(role: str) -> int:
    return 403 if ROLES[role][0] else 401


def sentence(role: str, action: str, name: str) -> str:
    user = ROLES[role][0]
    if not user:
        return f"who you are is not known, and not everybody may {action} '{name}'"
    return f"'{user}' may not {action} '{name}'"


def test_legacy_client_that_may_not_is_counted_and_hears_nothing(
    make_house: Callable[..., House],
) -> None:
    house = make_house()
    house.machine.set_rights(Rights(RULES), house.now)
    for dialect in LEGACY:
        house.hear(dialect.value.encode(), *ask(dialect, b"echo", [b"x"]))
    assert house.said() == []
    assert (house.counts.unanswered, house.counts.refused) == (4, {401: 4})


def test_refusal_names_no_service_that_the_client_may_not_call(
    make_house: Callable[..., House],
) -> None:
    house = with_rules(make_house)
    introduce(house, W, "admin")
    for name in (b"secret", b"echo", b"time"):
        house.worker(W, name)
    introduce(house, C, "user")
    house.said()
    house.request(C, 1, service=b"open", flags=spec.FAIL_FAST)
    assert house.words() == [final(C, 1, b"no worker serves 'open'; serving now: echo", status=503)]
    house.request(C, 2, service=b"secret", flags=spec.FAIL_FAST)
    house.request(C, 3, service=b"ghost", flags=spec.FAIL_FAST)
    house.request(C, 4, service=b"secret", address=b"no-such-worker")
    assert [status for _, _, status, _ in house.finals()] == [403, 403, 403]
    assert b"ghost" not in house.machine.registry.services


# ── a right that is taken away ────────────────────────────────────────────────────────────────────


def test_next_request_is_refused_when_the_right_is_gone(make_house: Callable[..., House]) -> None:
    house = with_rules(make_house)
    introduce(house, W, "admin")
    introduce(house, C, "user")
    house.worker(W, capacity=9)
    house.request(C, 1)
    house.machine.set_rights(Rights(RULES[3:4]), house.now)
    house.said()
    house.request(C, 2)
    assert house.finals() == [(C, 2, 403, [b"'ann' may not call 'echo'"])]
    house.answer(W, number(1), b"was given before")
    assert house.words() == [final(C, 1, b"was given before", worker=W)]


def test_worker_whose_service_is_no_longer_its_own_is_sent_off_at_once(
    make_house: Callable[..., House],
) -> None:
    house = with_rules(make_house)
    introduce(house, W, "worker")
    introduce(house, C, "user")
    house.worker(W)
    house.request(C, 1)
    house.said()
    house.machine.set_rights(Rights(RULES[:2]), house.now)
    house.turn()
    ((peer, command, fields, _),) = house.words()
    assert (peer, command) == (W, "DISCONNECT")
    told = metadata.unpack(fields["metadata"])
    assert told == {"status": 403, "reason": "'wes' may not serve 'echo'"}
    assert W not in house.machine.registry.workers
    house.answer(W, number(1), b"from nobody")
    assert house.words() == [disconnect(W)]


def test_worker_that_may_still_serve_does_not_notice(make_house: Callable[..., House]) -> None:
    house = with_rules(make_house)
    introduce(house, W, "worker")
    house.worker(W)
    house.said()
    house.machine.set_rights(Rights(RULES[2:3]), house.now)
    house.machine.set_rights(None, house.now)
    house.turn()
    assert house.words() == []
    assert W in house.machine.registry.workers


# ── tenants ───────────────────────────────────────────────────────────────────────────────────────

TENANTS: Final = {"acme": "acme.", "umbrella": "u."}
FREE: Final = Rule(True, frozenset((CALL, SERVE, MANAGE)), source="rule 1")


def tenant(house: House, peer: bytes, group: str) -> None:
    assert house.machine.identify(peer, peer.decode(), (group,), house.now)


@pytest.mark.parametrize("client", Dialect)
@pytest.mark.parametrize("worker", Dialect)
def test_tenants_call_the_same_name_and_never_meet(
    make_house: Callable[..., House], client: Dialect, worker: Dialect
) -> None:
    house = with_rules(make_house, FREE, **TENANTS)
    for peer, group in ((W, "acme"), (b"other-w", "umbrella")):
        tenant(house, peer, group)
        house.hear(peer, *ready(worker, b"echo"))
    assert set(house.machine.registry.services) == {b"acme.echo", b"u.echo"}
    tenant(house, C, "acme")
    house.said()
    house.hear(C, *ask(client, b"echo", [b"x"]))
    handle = house.machine.registry.peers[C].handle
    (dispatch,) = house.machine.registry.workers[W].held
    address = handle if client is worker is DELPHI else dispatch.to_bytes(8, "big")
    asked = dialects.asked(worker, address, [b"x"], dispatch, b"echo", handle)
    if worker is MDP03:
        told = metadata.pack({"attempt": 1, "user": "client-c"})
        plain = mdp03.parse(asked[0])
        fields = (spec.REQUEST, spec.BROKER_METADATA, *plain[2:7], told)
        asked[0] = mdp03.pack(*fields)
    assert house.said() == [(W, asked)]
    house.hear(W, *dialects.end(worker, b"echo", address, [b"y"], dispatch))
    assert house.said() == [(C, dialects.end_heard(client, b"echo", [b"y"], W))]


def test_tenant_is_told_of_its_own_services_by_their_own_names(
    make_house: Callable[..., House],
) -> None:
    house = with_rules(make_house, FREE, **TENANTS)
    tenant(house, W, "acme")
    tenant(house, b"other-w", "umbrella")
    tenant(house, C, "acme")
    house.worker(W)
    house.worker(b"other-w")
    house.worker(b"other-w", b"time")

    def asked(name: bytes, *body: bytes) -> Any:
        house.said()
        house.request(C, 1, *body, service=name)
        ((_, _, status, frames),) = house.finals()
        assert (status, frames[0][:1]) in ((200, b"2"), (200, b"4"))
        return json.loads(frames[1]) if frames[1:] else frames[0]

    assert asked(b"mmi.service", b"echo") == b"200"
    assert asked(b"mmi.service", b"time") == b"404"
    assert asked(b"mmi.service", b"u.echo") == b"404"
    assert [row["service"] for row in asked(b"mmi.services")] == ["echo"]
    (row,) = asked(b"mmi.workers")
    assert (row["id"], row["services"]) == (W.hex(), ["echo"])
    assert asked(b"mmi.workers", b"time") == []


def test_sentences_show_a_tenant_its_own_names(make_house: Callable[..., House]) -> None:
    house = with_rules(make_house, FREE, **TENANTS)
    tenant(house, W, "acme")
    tenant(house, b"other-w", "umbrella")
    house.worker(W)
    house.worker(b"other-w", b"time")
    tenant(house, C, "acme")
    house.said()
    house.request(C, 1, service=b"time", flags=spec.FAIL_FAST)
    house.request(C, 2, service=b"time", ttl=1000)
    house.request(C, 3, service=b"echo", address=b"other-w")
    house.pass_time(1.1)
    texts = {id: (status, *body) for _, id, status, body in house.finals()}
    assert texts == {
        1: (503, b"no worker serves 'time'; serving now: echo"),
        2: (503, b"no worker for service 'time' came within 1 s; serving now: echo"),
        3: (404, b"no worker 6f746865722d77 serves 'echo'"),
    }


def test_name_that_a_prefix_makes_too_long_is_refused(make_house: Callable[..., House]) -> None:
    house = with_rules(make_house, FREE, **TENANTS)
    tenant(house, C, "acme")
    house.request(C, 1, service=b"n" * 251)
    house.say(C, spec.READY, service=b"n" * 251, code=1)
    words = house.words()
    assert [word[1] for word in words] == ["FINAL", "DISCONNECT"]
    assert words[0][2]["code"] == 400


def test_worker_that_becomes_another_tenants_registers_anew(
    make_house: Callable[..., House],
) -> None:
    house = with_rules(make_house, FREE, **TENANTS)
    tenant(house, W, "acme")
    house.worker(W)
    house.said()
    tenant(house, W, "umbrella")
    house.turn()
    assert [word[:2] for word in house.words()] == [(W, "DISCONNECT")]
    assert house.machine.registry.services == {}
