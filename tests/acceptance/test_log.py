"""The log of a busy broker with keys, tokens, hooks and access rules.

Each event is one line, and the log contains no secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import zmq

from majordomus import Client, Worker
from majordomus.errors import StatusError, Unauthenticated
from majordomus.net import endpoints
from majordomus.net.broker.security import curve
from majordomus.net.zmq import sockets
from majordomus.protocol import mdp03, metadata, spec
from majordomus.security import certificates, tokens
from majordomus.security.certificates import Certificate
from tests.cli.shell import Running, Shell, clean_environment

BODY = "body-that-is-nobodys-business"
SECRET = "secret-that-is-nobodys-business"  # noqa: S105
GUESS = "guess-that-is-nobodys-business"
NASTY = 'x\n2026-01-01 00:00:00,000 CRITICAL root: forged\x1b[2J why="allowed" user=root'
LINE = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING|ERROR) majordomus[.\w]*: \S.*"
)
APP = """
from majordomus import Broker, Discard, Reject
from majordomus.middleware.request_log import RequestLog

class App(Broker):
    def on_request(self, request):
        if request.service == "refused":
            return Reject(403, "not today: " + request.text)
        if request.service == "dropped":
            return Discard()

    def on_reply(self, reply):
        reply.frames.append(b"seen")

def app(settings, bind):
    return App(settings, bind=bind, middleware=[RequestLog()])
"""
RULES = """
[[rule]]
allow = ["call"]
names = ["login", "logout", "mmi.service"]
[[rule]]
allow = ["serve"]
users = ["worker"]
[[rule]]
allow = ["call", "publish", "subscribe"]
groups = ["staff"]
names = ["echo", "fails", "refused", "dropped", "news"]
"""


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path, clean_environment() | {"XDG_STATE_HOME": str(tmp_path / "state")})
    made.environment.pop("STATE_DIRECTORY", None)
    yield made
    made.end()


def start(shell: Shell, style: str) -> tuple[Running, str]:
    """Start the broker; return it and its URL with the key."""
    for name in ("worker", "ann"):
        assert shell.run("keygen", name, "--directory", "keys").code == 0
    assert shell.run("token", "key", "signing").code == 0
    shell.write("app.py", APP)
    shell.write("rights.toml", RULES)
    flags = "--curve --clients keys --token-key signing.jwk_secret --acl rights.toml --app app:app"
    log = ["-v", "--log-format", style]
    broker = shell.start("broker", "--bind", "tcp://127.0.0.1:0", *flags.split(), *log)
    return broker, broker.out.until("clients connect with").partition("'")[2].rstrip("'")


def serve(url: str, pair: Path) -> Worker:
    worker = Worker(url, certificate=pair)

    @worker.service("auth")
    def auth(request: object) -> list[bytes]:
        frames = list(request.frames)
        if frames != [b"ann", SECRET.encode()]:
            raise Unauthenticated(f"not {frames[0].decode()}")
        return [b"200", b"ann", b"staff"]

    worker.add("echo", lambda request: request.body)

    @worker.service("fails")
    def fails(request: object) -> None:
        raise ValueError(BODY)

    return worker


def cause_events(stack: ExitStack, url: str, folder: Path) -> list[str]:
    """Cause every event that a broker logs; return the tokens that were used."""
    keys = folder / "keys"
    worker = stack.enter_context(serve(url, keys / "worker.key"))
    worker.wait_ready(20)
    pair = keys / "ann.key"
    ann = stack.enter_context(Client(url, certificate=pair, login=("ann", SECRET), timeout=20))
    assert ann.call("echo", BODY).frames == [BODY.encode(), b"seen"]
    used = [ann._session.login.token]
    for service in ("fails", "refused", "nobody", "auth", "mmi.stats", NASTY):
        with pytest.raises(StatusError):
            ann.call(service, BODY, fail_fast=True)
    ann.send("dropped", BODY)
    ann.publish("news", BODY)
    wrong = stack.enter_context(Client(url, certificate=pair, login=("ann", GUESS), timeout=20))
    with pytest.raises(Unauthenticated):
        wrong.call("echo", BODY)
    forged, _ = tokens.new_key().sign("root", [], 0)
    for token in (GUESS, forged, NASTY):
        plain = stack.enter_context(Client(url, certificate=pair, timeout=20))
        with pytest.raises(Unauthenticated):
            plain.call("echo", BODY, metadata={"token": token})
    stranger = stack.enter_context(Client(url, certificate=curve.make(), timeout=20))
    with pytest.raises(Unauthenticated):
        stranger.call("echo", BODY)
    forge(url, certificates.read_pair(pair), [used[0], forged])
    assert ann.call("logout", used[0]).body == b"200"
    assert ann.call("echo", BODY).frames[0] == BODY.encode()
    return [*used, forged, ann._session.login.token]


def forge(url: str, pair: Certificate, given: list[str]) -> None:
    """Send invalid and forged messages, and tokens in wrong places, with a permitted key."""
    with sockets.dealer() as peer:
        key = endpoints.key_of(url).encode()
        peer.setsockopt(zmq.CURVE_SERVERKEY, key)
        peer.setsockopt(zmq.CURVE_PUBLICKEY, pair.public.encode())
        peer.setsockopt(zmq.CURVE_SECRETKEY, pair.secret.encode())
        peer.connect("tcp://" + url.partition("://")[2].partition("?")[0])
        for token in given:
            field = metadata.pack({"token": token})
            for command in (spec.REQUEST, spec.HELLO, spec.READY, spec.EVENT, spec.FINAL, 77):
                header = mdp03.pack(
                    command,
                    spec.METADATA,
                    id=5,
                    code=1,
                    service=NASTY.encode(),
                    metadata=field,
                )
                peer.send_multipart([header, BODY.encode()])
            peer.send_multipart([token.encode(), BODY.encode()])
            peer.send_multipart([b"", b"MDPW02", b"\x04", token.encode(), b"", BODY.encode()])
        peer.send_multipart([mdp03.pack(spec.REQUEST, id=9, ttl=5000, service=b"mmi.service")])
        assert peer.poll(20_000)


@pytest.mark.parametrize("style", ["text", "json"])
def test_log_of_a_busy_broker_has_one_event_per_line_and_no_secret(
    shell: Shell, style: str
) -> None:
    broker, url = start(shell, style)
    with ExitStack() as stack:
        given = cause_events(stack, url, shell.folder)
    (shell.folder / "keys/ann.key").unlink()
    shell.write("rights.toml", "[[rule]]\nallow = 7\n")
    broker.err.until("the access rules stay as they were")
    assert broker.stop() == 0
    logged = [*broker.out.rest(), *broker.err.rest()]
    lines = broker.err.seen
    text = "\n".join(logged)
    for secret in (BODY, SECRET, GUESS, *secrets_of(shell.folder), *given):
        assert secret not in text
        claims = secret.partition(".")[2][:40]  # of a token; a key may have a dot as well
        assert len(claims) < 40 or claims not in text
    assert len(lines) > 15
    events = [event_of(line, style) for line in lines]
    for event in ("not-allowed", "handshake-failed", "dropped", "worker-ready", "worker-lost"):
        assert event in events
    assert not any(line.lstrip().startswith("2026-01-01 00:00:00") for line in lines)


def event_of(line: str, style: str) -> str:
    assert line.isprintable()
    if style == "text":
        assert LINE.fullmatch(line), line
        return line.split(": ", 1)[1].split()[0]
    logged = json.loads(line)
    assert list(logged)[:4] == ["time", "level", "logger", "event"]
    return str(logged["event"])


def secrets_of(folder: Path) -> Iterator[str]:
    """The secrets in the secret files."""
    files = [*folder.rglob("*_secret")]
    assert len(files) == 4
    for file in files:
        if file.suffix == ".jwk_secret":
            yield json.loads(file.read_text())["d"]
        else:
            yield certificates.read_pair(file).secret
