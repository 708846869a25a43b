"""TokenAuth in a running broker, with real clients and workers: who has no good token is refused,
whatever is wrong with it, and who has one is known to workers and rules."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from joserfc import jwt

from majordomus.core.broker.hooks.views import HookRequest
from majordomus.core.broker.settings import BrokerSettings
from majordomus.errors import ConfigurationError, Forbidden, StatusError, Unauthenticated
from majordomus.middleware.token_auth import TokenAuth
from majordomus.net.broker.broker import Broker
from majordomus.net.broker.security import curve
from majordomus.net.client.async_client import AsyncClient
from majordomus.net.client.client import Client
from majordomus.net.worker.request import Request
from majordomus.net.worker.worker import Worker
from majordomus.protocol import mdp03, metadata, spec
from majordomus.security import tokens
from majordomus.security.tokens import SigningKey, TokenError
from tests.net.conftest import QUICK, RawPeer, eventually, peers

__all__ = ["peers"]

Peers = Callable[[str], RawPeer]
USERS = {b"ann": (b"secret", [b"staff"]), b"wes": (b"work", [b"workers"])}


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return tokens.new_key()


def serve(url: str, **options: Any) -> Worker:
    """The auth service and an echo that tells who asks."""
    worker = Worker(url, **options)

    @worker.service("auth")
    def auth(request: Request) -> list[bytes]:
        user, secret = request.frames
        if user not in USERS or USERS[user][0] != secret:
            raise Unauthenticated("user or secret is wrong")
        return [b"200", user, *USERS[user][1]]

    @worker.service("whoami")
    def whoami(request: Request) -> bytes:
        return request.user.encode() + b" " + b"/".join(request.frames)

    return worker


class Place:
    """A broker with TokenAuth, and what serves there."""

    def __init__(
        self, key: SigningKey, settings: BrokerSettings = QUICK, url: str = "", **options: Any
    ) -> None:
        self.ahead = 0.0
        self.auth = TokenAuth(key=key, clock=lambda: time.time() + self.ahead, **options)
        self.broker = Broker(settings, bind=url or "tcp://127.0.0.1:0", middleware=[self.auth])
        self.broker.start()
        self.url = self.broker.endpoints[0]
        self.worker = serve(self.url)
        self.worker.start()
        self.worker.wait_ready(10)

    def close(self) -> None:
        self.worker.stop()
        self.broker.stop()


@pytest.fixture
def make_place(key: SigningKey) -> Iterator[Callable[..., Place]]:
    made: list[Place] = []

    def make(**options: Any) -> Place:
        made.append(Place(options.pop("key", key), **options))
        return made[-1]

    yield make
    for place in made:
        place.close()


@pytest.fixture
def place(make_place: Callable[..., Place]) -> Place:
    return make_place()


def ask(
    peer: RawPeer, token: str = "", id: int = 1, service: bytes = b"whoami"
) -> tuple[int, bytes]:
    """Status and first frame of the answer to a request with `token`."""
    field = metadata.pack({"token": token}) if token else b""
    flags = spec.METADATA if token else 0
    peer.send(
        mdp03.pack(spec.REQUEST, flags, id=id, ttl=5000, service=service, metadata=field), b"x"
    )
    header, body = peer.receive(10)
    assert header[3] == id
    return header[2], body[0]


# ── the flow ──────────────────────────────────────────────────────────────────────────────────────


def test_client_that_logs_in_is_known_to_the_worker(place: Place) -> None:
    with Client(place.url, login=("ann", "secret")) as client:
        assert client.call("whoami", b"hi", timeout=10).body == b"ann hi"
        assert client.call("whoami", b"again", timeout=10).body == b"ann again"


def test_asyncio_client_that_logs_in_is_known_to_the_worker(place: Place) -> None:
    async def main() -> bytes:
        async with AsyncClient(place.url, login=("ann", "secret")) as client:
            answers = [client.call("whoami", b"%d" % n, timeout=10) for n in range(20)]
            assert len({reply.body for reply in await asyncio.gather(*answers)}) == 20
            return (await client.call("whoami", b"hi", timeout=10)).body

    assert asyncio.run(main()) == b"ann hi"


def test_client_with_threads_and_presence_logs_in(place: Place) -> None:
    with Client(place.url, login=("ann", "secret")) as client:
        futures = [client.submit("whoami", b"%d" % n, timeout=10) for n in range(20)]
        assert {f.result(10).body for f in futures} == {b"ann %d" % n for n in range(20)}


@pytest.mark.parametrize("dialect", ["mdp01", "mdp02", "mdp02d", "delphi"])
def test_client_of_an_older_dialect_logs_in_where_the_setting_says_so(
    make_place: Callable[..., Place], dialect: str
) -> None:
    place = make_place(legacy=True)
    with Client(place.url, dialect=dialect, login=("ann", "secret")) as client:
        assert client.call("whoami", b"hi", timeout=10).body == b"ann hi"
        assert client.call("whoami", b"again", timeout=10).body == b"ann again"


def test_first_frame_of_an_older_dialect_is_nothing_but_a_body_without_the_setting(
    place: Place, key: SigningKey
) -> None:
    token, _ = key.sign("ann", [], time.time())
    with Client(place.url, dialect="mdp02") as client, pytest.raises(StatusError):
        client.call("whoami", [token, "x"], timeout=0.5)


OLDER = pytest.mark.parametrize("dialect", ["mdp01", "mdp02", "mdp02d", "delphi"])
REPLIES = msgspec.structs.replace(QUICK, legacy_errors="reply")
SILENT = pytest.mark.parametrize("settings", [QUICK, REPLIES], ids=["silent", "replies"])


@OLDER
@SILENT
def test_client_of_an_older_dialect_that_idles_past_its_tokens_life_logs_in_again(
    make_place: Callable[..., Place], dialect: str, settings: BrokerSettings
) -> None:
    place = make_place(legacy=True, lifetime=1.0, settings=settings)
    with Client(place.url, dialect=dialect, login=("ann", "secret")) as client:
        assert client.call("whoami", b"hi", timeout=10).body == b"ann hi"
        time.sleep(1.1)
        place.ahead += 60  # beyond what the clocks of two brokers may differ
        assert client.call("whoami", b"again", once=True, timeout=10).body == b"ann again"


@OLDER
def test_older_client_whose_token_the_broker_refuses_with_a_reply_calls_again(
    make_place: Callable[..., Place], dialect: str
) -> None:
    place = make_place(legacy=True, settings=REPLIES)
    with Client(place.url, dialect=dialect, login=("ann", "secret")) as client:
        assert client.call("whoami", b"hi", timeout=10).body == b"ann hi"
        place.ahead += 10_000
        assert client.call("whoami", b"again", timeout=10).body == b"ann again"
        place.ahead += 10_000
        with pytest.raises(Unauthenticated, match="the token has expired"):
            client.call("whoami", b"once", once=True, timeout=10)


@OLDER
@SILENT
def test_older_client_recovers_from_a_rotation_of_the_brokers_key(
    make_place: Callable[..., Place], dialect: str, settings: BrokerSettings
) -> None:
    place = make_place(legacy=True, settings=settings)
    with Client(place.url, dialect=dialect, login=("ann", "secret")) as client:
        assert client.call("whoami", b"hi", timeout=10).body == b"ann hi"
        place.close()
        make_place(key=tokens.new_key(), url=place.url, legacy=True, settings=settings)
        if settings is QUICK:  # silence cannot be told from a slow service: one call is lost
            with pytest.raises(StatusError):
                client.call("whoami", b"refused", timeout=0.7)
        assert client.call("whoami", b"again", timeout=10).body == b"ann again"


@OLDER
def test_reply_of_a_service_that_begins_with_401_reaches_an_older_client(
    make_place: Callable[..., Place], dialect: str
) -> None:
    place = make_place(legacy=True, settings=REPLIES)
    ran: list[bytes] = []

    def verdict(request: Request) -> list[bytes]:
        ran.append(request.body)
        return [b"401", b"no such account"]

    place.worker.add("verdict", verdict)
    with Client(place.url, dialect=dialect, login=("ann", "secret")) as client:
        reply = client.call("verdict", b"x", timeout=10)
        assert reply.frames == [b"401", b"no such account"]
        assert len(ran) == 1


def test_subscription_goes_on_after_the_token_of_a_reconnect_was_refused(
    make_place: Callable[..., Place],
) -> None:
    place = make_place()
    with Client(place.url, login=("ann", "secret"), timeout=10) as client:
        events = client.subscribe("news.>")
        client.publish("news.one", b"1")
        assert next(events).body == b"1"
        place.close()
        renewed = make_place(key=tokens.new_key(), url=place.url)
        assert client.call("whoami", b"hi").body == b"ann hi"
        with Client(renewed.url, login=("ann", "secret"), timeout=10) as other:

            def arrives() -> bool:
                other.publish("news.two", b"2")
                with suppress(TimeoutError):
                    return events.get(0.2).body == b"2"
                return False

            eventually(arrives, 10)


def test_wrong_secret_is_401_with_the_auth_services_words(place: Place) -> None:
    with (
        Client(place.url, login=("ann", "wrong")) as client,
        pytest.raises(Unauthenticated, match="user or secret is wrong"),
    ):
        client.call("whoami", timeout=10)


def test_client_without_a_login_is_401(place: Place) -> None:
    with Client(place.url) as client:
        for service in ("whoami", "auth", "mmi.services", "nothing"):
            with pytest.raises(Unauthenticated, match="log in first"):
                client.call(service, timeout=10)


def test_token_is_renewed_before_it_expires(make_place: Callable[..., Place]) -> None:
    place = make_place(lifetime=2.0)
    with Client(place.url, login=("ann", "secret")) as client:
        until = time.monotonic() + 4
        while time.monotonic() < until:
            assert client.call("whoami", b"x", timeout=10).body == b"ann x"
            time.sleep(0.05)


def test_worker_that_logs_in_may_serve_what_the_rules_let_it(
    key: SigningKey, tmp_path: Path
) -> None:
    rules = tmp_path / "rights.toml"
    rules.write_text(
        """
        [[rule]]
        allow = ["call"]
        names = ["login"]
        [[rule]]
        allow = ["call"]
        groups = ["staff"]
        [[rule]]
        allow = ["serve"]
        groups = ["workers"]
        [[rule]]
        allow = ["serve"]
        names = ["auth"]
        """
    )
    settings = msgspec.structs.replace(QUICK, acl=str(rules))
    broker = Broker(settings, bind="tcp://127.0.0.1:0", middleware=[TokenAuth(key=key)])
    with broker:
        url = broker.endpoints[0]
        auth = Worker(url)
        auth.service("auth")(serve(url).handlers["auth"].function)
        worker = Worker(url, login=("wes", "work"))
        worker.service("whoami")(lambda request: request.user)
        stranger = Worker(url)
        stranger.service("whoami")(lambda request: "stranger")
        with auth, worker, stranger, Client(url, login=("ann", "secret")) as client:
            worker.wait_ready(10)
            assert client.call("whoami", timeout=10).body == b"ann"
            assert not stranger.ready
            with Client(url, login=("wes", "work")) as other, pytest.raises(Forbidden):
                other.call("whoami", timeout=10)


# ── tokens that are refused ───────────────────────────────────────────────────────────────────────


def test_good_token_in_a_request_passes_and_never_reaches_the_worker(
    place: Place, key: SigningKey, peers: Peers
) -> None:
    token, _ = key.sign("ann", ["staff"], time.time())
    seen: list[bytes] = []
    worker = Worker(place.url)
    worker.service("look")(lambda request: seen.append(repr(request.metadata).encode()) or "ok")
    with worker:
        worker.wait_ready(10)
        assert ask(peers(place.url), token, service=b"look") == (200, b"ok")
    assert token.encode() not in b"".join(seen)


def bad_tokens(key: SigningKey) -> dict[str, str]:
    now = time.time()
    good, _ = key.sign("ann", [], now)
    head, payload, signature = good.split(".")
    none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"
    claims = {"sub": "ann", "groups": [], "iat": 0, "exp": 9**10, "jti": "x", "sid": "x"}
    header = {"alg": "HS256", "kid": key.kid}
    secret = "0" * 64
    from joserfc.jwk import OctKey

    hs256 = jwt.encode(header, claims, OctKey.import_key(secret), algorithms=["HS256"])
    return {
        "expired": key.sign("ann", [], now - 1000)[0],
        "of the future": key.sign("ann", [], now + 1000)[0],
        "tampered": f"{head}.{payload[:-4]}AAAA.{signature}",
        "without signature": f"{head}.{payload}.",
        "alg none": f"{none}.{payload}.",
        "alg HS256": hs256,
        "wrong key": tokens.new_key().sign("ann", [], now)[0],
        "bound to a key": key.sign("ann", [], now, curve="c" * 40)[0],
        "rubbish": "rubbish",
        "long": "x" * 3500,
    }


def test_token_with_anything_wrong_is_401_in_requests_hello_and_renewals(
    place: Place, key: SigningKey, peers: Peers
) -> None:
    for name, token in bad_tokens(key).items():
        peer = peers(place.url)
        assert ask(peer, token)[0] == 401, name
        assert ask(peer, "", 2)[0] == 401, name
        peer.send(mdp03.pack(spec.REQUEST, id=3, ttl=5000, service=b"login"), token.encode())
        assert peer.receive(10)[0][2] == 401, name
        other = peers(place.url)
        field = metadata.pack({"token": token})
        other.send(mdp03.pack(spec.HELLO, spec.METADATA, id=7, metadata=field))
        header, _ = other.receive(10)
        assert (header[0], header[2], header[3]) == (spec.FINAL, 401, 7), name
        assert ask(other, "", 8)[0] == 401, name


def test_token_of_hello_expires_while_the_connection_stays(
    place: Place, key: SigningKey, peers: Peers
) -> None:
    token, _ = key.sign("ann", [], time.time(), lifetime=2)
    peer = peers(place.url)
    field = metadata.pack({"token": token})
    peer.send(mdp03.pack(spec.HELLO, spec.METADATA, metadata=field))
    assert peer.receive(10)[0][0] == spec.WELCOME
    machine = place.broker._loop._machine  # type: ignore[union-attr]
    assert ask(peer)[0] == 200
    known = [other for other in machine.registry.peers.values() if other.user == "ann"]
    assert len(known) == 1

    def nobody() -> bool:
        peer.send(mdp03.pack(spec.HEARTBEAT))
        return known[0].user == ""

    eventually(nobody, within=10)
    assert known[0].id in machine.registry.peers
    assert ask(peer, "", 2)[0] == 401


def test_revoked_token_is_refused_and_its_connection_becomes_anonymous(
    place: Place, key: SigningKey, peers: Peers
) -> None:
    token, claims = key.sign("ann", [], time.time())
    present, plain = peers(place.url), peers(place.url)
    field = metadata.pack({"token": token})
    present.send(mdp03.pack(spec.HELLO, spec.METADATA, metadata=field))
    assert present.receive(10)[0][0] == spec.WELCOME
    assert (ask(present)[0], ask(plain, token)[0]) == (200, 200)
    place.auth.revoke(claims.id)
    assert (ask(present, "", 2)[0], ask(plain, token, 2)[0]) == (401, 401)
    machine = place.broker._loop._machine  # type: ignore[union-attr]
    eventually(lambda: not any(p.user == "ann" for p in machine.registry.peers.values()))


def test_client_of_ours_logs_in_again_when_its_token_was_revoked(place: Place) -> None:
    with Client(place.url, login=("ann", "secret")) as client:
        assert client.call("whoami", b"x", timeout=10).body == b"ann x"
        session = client._session
        first = session.login.token  # type: ignore[attr-defined]
        claims = place.auth._checker.check(first, time.time())
        place.auth.revoke(claims.session)
        assert client.call("whoami", b"y", timeout=10).body == b"ann y"
        assert session.login.token != first  # type: ignore[attr-defined]


def test_logout_revokes_the_session(place: Place, key: SigningKey, peers: Peers) -> None:
    token, claims = key.sign("ann", [], time.time())
    renewed, _ = key.sign("ann", [], time.time(), session=claims.session)
    peer = peers(place.url)
    assert ask(peer, token, 1, b"logout") == (200, b"200")
    assert (ask(peer, token, 2)[0], ask(peer, renewed, 3)[0]) == (401, 401)


def test_renewal_gives_a_new_token_of_the_same_session_until_that_is_over(
    place: Place, key: SigningKey, peers: Peers
) -> None:
    token, claims = key.sign("ann", ["staff"], time.time())
    peer = peers(place.url)
    peer.send(mdp03.pack(spec.REQUEST, id=1, ttl=5000, service=b"login"), token.encode())
    _, (renewed, seconds) = peer.receive(10)
    again = tokens.Checker([key.public]).check(renewed.decode(), time.time())
    assert again[:2] == ("ann", ("staff",))
    assert (again.session, again.since) == (claims.session, claims.since)
    assert again.id != claims.id
    assert 895 <= int(seconds) <= 900
    old, _ = key.sign("ann", [], time.time(), since=time.time() - 50_000)
    peer.send(mdp03.pack(spec.REQUEST, id=2, ttl=5000, service=b"login"), old.encode())
    header, body = peer.receive(10)
    assert (header[2], body) == (401, [b"the session has ended: log in again"])


# ── keys ──────────────────────────────────────────────────────────────────────────────────────────


def test_two_keys_are_live_while_they_are_changed(
    place: Place, key: SigningKey, peers: Peers
) -> None:
    newer = tokens.new_key()
    old_token, _ = key.sign("ann", [], time.time())
    new_token, _ = newer.sign("ann", [], time.time())
    peer = peers(place.url)
    assert (ask(peer, old_token, 1)[0], ask(peer, new_token, 2)[0]) == (200, 401)
    place.auth.rotate(newer)
    assert (ask(peer, old_token, 3)[0], ask(peer, new_token, 4)[0]) == (200, 200)
    with Client(place.url, login=("ann", "secret")) as client:
        client.call("whoami", timeout=10)
        made = client._session.login.token  # type: ignore[attr-defined]
        assert tokens.Checker([newer.public]).check(made, time.time()).user == "ann"
    place.auth.retire(key.kid)
    assert (ask(peer, old_token, 5)[0], ask(peer, new_token, 6)[0]) == (401, 200)


def test_other_broker_needs_only_the_public_key(
    place: Place, key: SigningKey, tmp_path: Path, peers: Peers
) -> None:
    public, secret = key.save(tmp_path / "signing")
    secret.unlink()
    elsewhere = TokenAuth(public_keys=[public])
    with (
        Broker(QUICK, bind="tcp://127.0.0.1:0", middleware=[elsewhere]) as broker,
        serve(broker.endpoints[0]) as worker,
        Client(place.url, login=("ann", "secret")) as client,
    ):
        worker.wait_ready(10)
        client.call("whoami", timeout=10)
        made = client._session.login.token  # type: ignore[attr-defined]
        peer = peers(broker.endpoints[0])
        assert ask(peer, made) == (200, b"ann x")
        assert ask(peer, "", 2, b"login")[0] == 501


def test_invalid_options_are_refused(key: SigningKey, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="needs a key"):
        TokenAuth()
    with pytest.raises(ConfigurationError, match="must be 1 to"):
        TokenAuth(key=key, lifetime=0)
    with pytest.raises(ConfigurationError, match="cannot read"):
        TokenAuth(key=tmp_path / "nothing.jwk_secret")
    for login in ("ann", ("ann",), (1, 2)):
        with pytest.raises(ConfigurationError, match="login is a tuple"):
            Client("tcp://127.0.0.1:1", login=login)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="has no login"):
        Worker("tcp://127.0.0.1:1", dialect="mdp02", login=("wes", "work"))


def test_open_services_and_anonymous_callers_pass_without_a_token(
    make_place: Callable[..., Place], peers: Peers
) -> None:
    open_place, free_place = make_place(open_services=["whoami"]), make_place(anonymous=True)
    assert ask(peers(open_place.url)) == (200, b" x")
    assert ask(peers(free_place.url)) == (200, b" x")
    assert ask(peers(free_place.url), "rubbish")[0] == 401


def test_invalid_approval_yields_no_token(place: Place, peers: Peers) -> None:
    place.worker.stop()
    peer, client = peers(place.url), peers(place.url)
    peer.ready(b"auth", capacity=9)
    answers: list[list[bytes]] = [
        [],
        [b"ann"],
        [b"200"],
        [b"201", b"ann"],
        [b"200", b""],
        [b"200", b"\xff"],
        [b"200", b"a\nb"],
    ]
    for id, answer in enumerate(answers, 1):
        client.send(mdp03.pack(spec.REQUEST, id=id, ttl=5000, service=b"login"), b"ann", b"x")
        header, _ = peer.receive(10)
        peer.final(header[3], *answer)
        header, body = client.receive(10)
        assert header[2] in (401, 500), answer
        assert b"ey" not in b"".join(body)


def test_nothing_secret_is_logged(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        with (
            Client(place.url, login=("ann", "secret-word")) as client,
            pytest.raises(Unauthenticated),
        ):
            client.call("whoami", b"private-body", timeout=10)
        with Client(place.url, login=("ann", "secret")) as client:
            client.call("whoami", b"private-body", timeout=10)
            token = client._session.login.token  # type: ignore[attr-defined]
            place.auth.revoke(place.auth._checker.check(token, time.time()).session)
            client.call("whoami", b"private-body", timeout=10)
    text = caplog.text
    for secret in ("secret-word", "private-body", token, token.split(".")[2]):
        assert secret not in text
    assert HookRequest.__repr__ is not object.__repr__


# ── over CURVE ────────────────────────────────────────────────────────────────────────────────────


def test_token_is_bound_to_the_clients_key_and_refused_over_another_connection(
    key: SigningKey,
) -> None:
    mine, others = curve.make(), curve.make()
    broker = Broker(
        QUICK, bind="tcp://127.0.0.1:0", curve=curve.make(), middleware=[TokenAuth(key=key)]
    )
    with broker:
        url, public = broker.endpoints[0], broker.security_policy.certificate.public
        worker = serve(url, server_key=public, login=("wes", "work"))
        first = serve(url, server_key=public)
        with (
            first,
            worker,
            Client(url, server_key=public, certificate=mine, login=("ann", "secret")) as client,
        ):
            assert client.call("whoami", b"x", timeout=10).body == b"ann x"
            token = client._session.login.token  # type: ignore[attr-defined]
            claims = tokens.Checker([key.public]).check(token, time.time(), mine.public)
            assert claims.curve == mine.public
            for pair, status in ((mine, 200), (others, 401), (None, 401)):
                with Client(url, server_key=public, certificate=pair) as other:
                    try:
                        other.call("whoami", b"x", timeout=10, metadata={"token": token})
                        got = 200
                    except StatusError as error:
                        got = error.status
                assert got == status


def test_revoked_session_stays_revoked_in_a_broker_that_is_made_anew(tmp_path: Path) -> None:
    key, file = tokens.new_key(), tmp_path / "revoked"
    token, claims = key.sign("ann", ["staff"], time.time())
    TokenAuth(key=key, revocations=file).revoke(claims.session)
    with pytest.raises(TokenError, match="was revoked"):
        TokenAuth(key=key, revocations=file)._check(token, "")
    assert TokenAuth(key=key, revocations=None)._check(token, "").user == "ann"
