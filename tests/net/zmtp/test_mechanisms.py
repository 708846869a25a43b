"""The handshakes of NULL, PLAIN and CURVE without a connection: vectors, and everything that a
handshake must refuse."""

from __future__ import annotations

import ctypes
import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from zmq.utils import z85

m: Any = pytest.importorskip(
    "majordomus.net.zmtp.mechanisms", reason="our own ZMTP is for Linux alone"
)
sodium: Any = importlib.import_module("majordomus.net.zmtp.sodium")
Boxes: Any = importlib.import_module("majordomus.net.zmtp.boxes").Boxes

VECTORS = json.loads((Path(__file__).parent / "vectors" / "curve.json").read_text())
NOW = 1000.0
LOW_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]
"""Public keys whose shared key is known to everybody."""


def pair() -> tuple[bytes, bytes]:
    public, secret = zmq.curve_keypair()
    return z85.decode(public), z85.decode(secret)


SERVER = pair()
CLIENT = pair()


def counted(start: int) -> Callable[[int], bytes]:
    """Return a source of bytes that are the same in each run."""
    state = start

    def take(size: int) -> bytes:
        nonlocal state
        state += 1
        return bytes((state * 31 + n * 7) % 256 for n in range(size))

    return take


def body(frame: bytes) -> bytes:
    """Return the body of a command's frame."""
    if frame[0] == 4:
        assert frame[1] == len(frame) - 2
        return frame[2:]
    assert frame[0] == 6
    assert int.from_bytes(frame[1:9]) == len(frame) - 9
    return frame[9:]


def server(keys: Any = None) -> Any:
    return m.CurveServer(keys or m.CurveKeys(*SERVER), b"ROUTER")


def client(**named: Any) -> Any:
    return m.CurveClient(SERVER[0], *CLIENT, b"DEALER", b"\1me", **named)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def shaken(ours: Any, theirs: Any) -> None:
    """Run a handshake to its end; `ours` is the client."""
    sent = ours.begin()
    theirs_first = theirs.begin()
    if theirs_first:
        ours.receive(body(theirs_first), NOW)
    while sent:
        got = theirs.receive(body(sent), NOW)
        if theirs.stage == m.ASKING:
            got += theirs.decide(200)
        if theirs.stage == m.DONE:
            got += theirs.finish()
        sent = ours.receive(body(got), NOW) if got else b""
    if ours.stage == m.ASKING:
        ours.decide(200)


# ── libsodium ─────────────────────────────────────────────────────────────────────────────────────


def test_library_without_the_functions_is_refused_with_the_reason() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import ctypes, majordomus.net.zmtp.sodium as s; print(s.check(ctypes.CDLL(None)))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("pyzmq has no libsodium that can be called: ")


def library() -> ctypes.CDLL:
    found: Any = zmq.backend
    return ctypes.CDLL(found.cython._zmq.__file__)


@pytest.mark.parametrize(
    "size", [*range(70), 255, 256, 478, 479, 480, 511, 512, 513, 543, 544, 1000, 4096, 70_001]
)
def test_cached_form_of_a_box_equals_crypto_box(size: int) -> None:
    """Both ends of a connection, by crypto_box of libsodium itself."""
    ours, theirs = client(), server()
    shaken(ours, theirs)
    text = bytes(n * 13 % 251 for n in range(size))
    frame = ours.boxes.seal_frame(1, text)
    head = 2 if len(frame) < 258 else 9
    assert frame[0] == (0 if head == 2 else 2)
    length = frame[1] if head == 2 else int.from_bytes(frame[1:9])
    assert length == len(frame) - head == size + 33
    assert frame[head : head + 8] == b"\x07MESSAGE"
    assert theirs.boxes.open_body(frame[head:]) == (1, text)


# ── vectors ───────────────────────────────────────────────────────────────────────────────────────


def test_handshake_and_messages_have_the_bytes_of_the_vectors() -> None:
    v = {name: bytes.fromhex(value) for name, value in VECTORS.items()}
    keys = m.CurveKeys(v["server_public"], v["server_secret"], counted(100))
    theirs = m.CurveServer(keys, b"ROUTER")
    ours = m.CurveClient(
        v["server_public"],
        v["client_public"],
        v["client_secret"],
        b"DEALER",
        b"\1me",
        bundles=False,
        random=counted(200),
    )
    made = {"hello": ours.begin()}
    made["welcome"] = theirs.receive(body(made["hello"]), NOW)
    made["initiate"] = ours.receive(body(made["welcome"]), NOW)
    assert theirs.receive(body(made["initiate"]), NOW) == b""
    assert theirs.credentials == (v["client_public"],)
    assert theirs.decide(200) == b""
    made["ready"] = theirs.finish()
    assert ours.receive(body(made["ready"]), NOW) == b""
    made["message_to_server"] = ours.boxes.seal_frame(1, b"hello")
    made["message_to_client"] = theirs.boxes.seal_frame(0, b"x" * 300)
    made["ping"] = ours.boxes.seal_frame(2, b"\x04PING\0\0")
    assert {name: value.hex() for name, value in made.items()} == {
        name: VECTORS[name] for name in made
    }
    assert (theirs.identity, theirs.kind, ours.kind) == (b"\1me", b"DEALER", b"ROUTER")
    assert [len(made[name]) for name in ("hello", "welcome")] == [202, 170]


def recorded(side: str) -> dict[str, Any]:
    """What a JeroMQ peer and ours sent each other; ours had the keys and random bytes of the
    vectors."""
    path = Path(__file__).parent / "vectors" / "jeromq.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))[side]
    return {
        name: bytes.fromhex(value) if isinstance(value, str) else value
        for name, value in found.items()
    }


def opened(boxes: Any, frames: list[str]) -> list[tuple[int, bytes]]:
    """Open boxes that came as frames of messages."""
    texts = []
    for frame in map(bytes.fromhex, frames):
        assert frame[0] in (0, 2)
        texts.append(boxes.open_body(frame[9:] if frame[0] else frame[2:]))
    return texts


def test_recorded_client_of_jeromq_is_served() -> None:
    v = {name: bytes.fromhex(value) for name, value in VECTORS.items()}
    theirs = recorded("client")
    assert theirs["greeting"][12:32] == b"CURVE".ljust(20, b"\0")
    ours = m.CurveServer(
        m.CurveKeys(v["server_public"], v["server_secret"], counted(100)), b"ROUTER"
    )
    assert ours.receive(body(theirs["hello"]), NOW) == theirs["welcome"]
    assert ours.receive(body(theirs["initiate"]), NOW) == b""
    assert ours.credentials == (v["client_public"],)
    assert ours.decide(200) + ours.finish() == theirs["ready"]
    assert (ours.identity, ours.kind, ours.bundles) == (b"jeromq", b"DEALER", False)
    texts = opened(ours.boxes, theirs["messages"])
    assert texts == [(flags, bytes.fromhex(text)) for flags, text in theirs["texts"]]
    assert [one for one in texts if not one[0] & 2] == [
        *((0, b"hello"), (1, b""), (1, b"x" * 300), (0, b"end")),
    ]
    assert [one[1][:5] for one in texts if one[0] & 2] == [b"\x04PING"]


def test_recorded_server_of_jeromq_is_understood() -> None:
    v = {name: bytes.fromhex(value) for name, value in VECTORS.items()}
    theirs = recorded("server")
    ours = m.CurveClient(
        v["server_public"],
        v["client_public"],
        v["client_secret"],
        b"DEALER",
        b"\1me",
        random=counted(200),
    )
    assert ours.begin() == theirs["hello"]
    assert ours.receive(body(theirs["welcome"]), NOW) == theirs["initiate"]
    assert ours.receive(body(theirs["ready"]), NOW) == b""
    assert (ours.identity, ours.kind, ours.bundles) == (b"jeromq", b"DEALER", False)
    texts = opened(ours.boxes, theirs["messages"])
    assert texts == [(flags, bytes.fromhex(text)) for flags, text in theirs["texts"]]
    assert [one for one in texts if not one[0] & 2] == [(1, b"welcome"), (0, bytes(70))]


def test_ready_and_initiate_have_less_than_256_bytes_of_metadata() -> None:
    """JeroMQ has room for no more."""
    ours = m.CurveClient(SERVER[0], *CLIENT, b"DEALER", b"i" * 16)
    theirs = server()
    hello = ours.begin()
    initiate = body(ours.receive(body(theirs.receive(body(hello), NOW)), NOW))
    assert len(initiate) - 257 < 256
    theirs.receive(initiate, NOW)
    theirs.decide(200)
    assert len(body(theirs.finish())) - 30 < 256


def test_null_and_plain_exchange_kind_and_identity() -> None:
    ours, theirs = m.Null(b"DEALER", b"\1me"), m.Null(b"ROUTER")
    theirs.receive(body(ours.begin()), NOW)
    ours.receive(body(theirs.begin()), NOW)
    assert (theirs.stage, theirs.credentials) == (m.ASKING, ())
    theirs.decide(200)
    assert (theirs.stage, theirs.identity, theirs.kind) == (m.DONE, b"\1me", b"DEALER")
    ours, theirs = m.PlainClient(b"ann", b"secret", b"DEALER", b"\1me"), m.PlainServer(b"ROUTER")
    hello = ours.begin()
    assert hello == b"\x04\x11\x05HELLO\x03ann\x06secret"
    theirs.receive(body(hello), NOW)
    assert (theirs.stage, theirs.credentials) == (m.ASKING, (b"ann", b"secret"))
    welcome = theirs.decide(200)
    assert (welcome, theirs.credentials) == (b"\x04\x08\x07WELCOME", None)
    theirs.receive(body(ours.receive(body(welcome), NOW)), NOW)
    assert (theirs.stage, theirs.identity, theirs.kind) == (m.DONE, b"\1me", b"DEALER")
    ours.receive(body(theirs.finish()), NOW)
    assert (ours.stage, ours.kind) == (m.DONE, b"ROUTER")


@pytest.mark.parametrize("kind", ["null", "plain", "curve"])
@pytest.mark.parametrize("status", [300, 400, 500])
def test_refused_client_gets_the_status_of_zap(kind: str, status: int) -> None:
    ours, theirs = {
        "null": lambda: (m.Null(b"DEALER"), m.Null(b"ROUTER")),
        "plain": lambda: (m.PlainClient(b"ann", b"x", b"DEALER"), m.PlainServer(b"ROUTER")),
        "curve": lambda: (client(), server()),
    }[kind]()
    sent = ours.begin()
    while theirs.stage == m.WORKING:
        got = theirs.receive(body(sent), NOW)
        if theirs.stage == m.WORKING:
            sent = ours.receive(body(got), NOW)
    told = theirs.decide(status)
    assert (theirs.stage, theirs.failure) == (m.FAILED, f"refused {status}")
    if status == 300:  # libzmq closes without a word, and the client tries again
        assert told == b""
        return
    name = b"^RROR" if kind == "plain" else b"\x05ERROR"  # libzmq's PLAIN has this mistake
    assert told == bytes([4, len(name) + 4]) + name + b"\x03%d" % status
    ours.receive(body(told), NOW)
    assert (ours.stage, ours.failure) == (m.FAILED, f"refused {status}")


@pytest.mark.parametrize("name", [b"\x05ERROR", b"^RROR"])
def test_client_of_plain_reads_the_error_of_the_rfc_and_of_libzmq(name: bytes) -> None:
    ours = m.PlainClient(b"ann", b"x", b"DEALER")
    ours.receive(name + b"\x03400", NOW)
    assert (ours.stage, ours.failure) == (m.FAILED, "refused 400")


def test_error_without_a_status_is_a_refusal() -> None:
    for command in (
        b"\x05ERROR\0",
        b"\x05ERROR\x03abc",
        b"\x05ERROR",
        b"\x05ERROR\x04\xb2\xb2\xb2",
    ):
        ours = client()
        ours.begin()
        ours.receive(command, NOW)
        assert ours.failure == "refused 400"


# ── PLAIN ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "hello",
    [
        b"",
        b"\x05HELLO",
        b"\x05HELLO\0",
        b"\x05HELLO\x03an",
        b"\x05HELLO\x03ann",
        b"\x05HELLO\x03ann\x06secre",
        b"\x05HELLO\x03ann\x06secretx",
        b"\x08INITIATE",
        b"\x05READY",
        b"\x05HELLo\x03ann\x06secret",
    ],
)
def test_malformed_hello_of_plain_is_refused(hello: bytes) -> None:
    theirs = m.PlainServer(b"ROUTER")
    assert theirs.receive(hello, NOW) == b""
    assert (theirs.stage, theirs.failure) == (m.FAILED, "malformed")


def test_plain_accepts_an_empty_user_and_password() -> None:
    theirs = m.PlainServer(b"ROUTER")
    theirs.receive(b"\x05HELLO\0\0", NOW)
    assert theirs.credentials == (b"", b"")


@pytest.mark.parametrize(
    "metadata",
    [
        b"\0\0\0\0\0",
        b"\x01a\0\0\0",
        b"\x01a\0\0\0\x02x",
        b"\x01a\xff\xff\xff\xffx",
        b"\xffa\0\0\0\x01x",
        b"\x01a\x7f\xff\xff\xff",
    ],
)
def test_malformed_metadata_are_refused(metadata: bytes) -> None:
    null = m.Null(b"ROUTER")
    null.receive(b"\x05READY" + metadata, NOW)
    assert (null.stage, null.failure) == (m.FAILED, "malformed")
    plain = m.PlainServer(b"ROUTER")
    plain.receive(b"\x05HELLO\0\0", NOW)
    plain.decide(200)
    plain.receive(b"\x08INITIATE" + metadata, NOW)
    assert (plain.stage, plain.failure) == (m.FAILED, "malformed")


# ── CURVE: what a server refuses ──────────────────────────────────────────────────────────────────


def test_any_flipped_bit_of_hello_ends_the_handshake() -> None:
    hello = body(client().begin())
    for at in range(len(hello)):
        theirs = server()
        assert theirs.receive(flipped(hello, at), NOW) == b""
        assert theirs.stage == m.FAILED, at
        assert theirs.failure in ("malformed", "wrong-server-key")


def test_any_flipped_bit_of_welcome_initiate_or_ready_ends_the_handshake() -> None:
    """RFC 26: "the server SHALL disconnect" a client whose commands it cannot open."""
    for at in range(168):
        ours, theirs = client(), server()
        welcome = body(theirs.receive(body(ours.begin()), NOW))
        sent = ours.receive(flipped(welcome, at), NOW)
        assert (sent, ours.stage) == (b"", m.FAILED), at
    for at in range(len(begun()[2])):
        ours, theirs, initiate = begun()
        theirs.receive(flipped(initiate, at), NOW)
        assert theirs.stage == m.FAILED, at
        assert theirs.credentials is None
    for at in range(60):
        ours, theirs, initiate = begun()
        theirs.receive(initiate, NOW)
        theirs.decide(200)
        ours.receive(flipped(body(theirs.finish()), at), NOW)
        assert ours.stage == m.FAILED, at


def begun(keys: Any = None, **named: Any) -> tuple[Any, Any, bytes]:
    """Return both sides, and the body of the INITIATE that the server gets next."""
    ours, theirs = client(**named), server(keys)
    welcome = theirs.receive(body(ours.begin()), NOW)
    return ours, theirs, body(ours.receive(body(welcome), NOW))


@pytest.mark.parametrize("size", [0, 1, 6, 8, 199, 201, 300])
def test_hello_of_another_size_is_refused(size: int) -> None:
    theirs = server()
    theirs.receive((body(client().begin()) + bytes(200))[:size], NOW)
    assert (theirs.stage, theirs.failure) == (m.FAILED, "malformed")


@pytest.mark.parametrize("size", [0, 9, 105, 256, 257, 300])
def test_truncated_initiate_is_refused(size: int) -> None:
    _, theirs, initiate = begun()
    assert len(initiate) > size
    theirs.receive(initiate[:size], NOW)
    assert theirs.stage == m.FAILED


@pytest.mark.parametrize("key", LOW_ORDER)
def test_low_order_key_is_refused_as_short_term_and_as_long_term_key(key: bytes) -> None:
    hello = body(client().begin())
    theirs = server()
    theirs.receive(hello[:80] + key + hello[112:], NOW)
    assert (theirs.stage, theirs.failure) == (m.FAILED, "malformed")
    # A client that claims such a long-term key knows the key of the vouch's box.
    ours = m.CurveClient(SERVER[0], key, CLIENT[1], b"DEALER")
    theirs = server()
    welcome = theirs.receive(body(ours.begin()), NOW)
    theirs.receive(body(ours.receive(body(welcome), NOW)), NOW)
    assert (theirs.stage, theirs.failure) == (m.FAILED, "malformed")
    ours = m.CurveClient(key, *CLIENT, b"DEALER")
    assert (ours.begin(), ours.stage) == (b"", m.FAILED)


def test_client_with_the_public_key_of_another_is_refused() -> None:
    ours = m.CurveClient(SERVER[0], pair()[0], CLIENT[1], b"DEALER")
    theirs = server()
    welcome = theirs.receive(body(ours.begin()), NOW)
    theirs.receive(body(ours.receive(body(welcome), NOW)), NOW)
    assert (theirs.stage, theirs.failure, theirs.credentials) == (m.FAILED, "forged", None)


def test_client_with_another_server_key_is_refused() -> None:
    ours = m.CurveClient(pair()[0], *CLIENT, b"DEALER")
    theirs = server()
    theirs.receive(body(ours.begin()), NOW)
    assert (theirs.stage, theirs.failure) == (m.FAILED, "wrong-server-key")


def test_hello_whose_box_is_not_zeros_is_refused() -> None:
    """The box of a WELCOME-sized text by a peer that knows our key: only zeros are a HELLO."""
    short_public, short_secret = pair()
    nonce = b"CurveZMQHELLO---" + (1).to_bytes(8)
    made = ctypes.create_string_buffer(80)
    text = bytes(63) + b"\1"
    assert library().crypto_box_easy(made, text, 64, nonce, SERVER[0], short_secret) == 0
    hello = b"\x05HELLO\x01\0" + bytes(72) + short_public + (1).to_bytes(8) + made.raw
    theirs = server()
    theirs.receive(hello, NOW)
    assert (theirs.stage, theirs.failure) == (m.FAILED, "malformed")


def initiate_by_hand(
    ours: Any, welcome: bytes, vouched: tuple[bytes, bytes], short: tuple[bytes, bytes]
) -> bytes:
    """An INITIATE whose vouch names these keys; made with libsodium alone."""
    box, unbox = library().crypto_box_easy, library().crypto_box_open_easy
    opened = ctypes.create_string_buffer(128)
    assert unbox(opened, welcome[24:], 144, b"WELCOME-" + welcome[8:24], SERVER[0], short[1]) == 0
    there, cookie = opened.raw[:32], opened.raw[32:]
    vouch = ctypes.create_string_buffer(80)
    assert box(vouch, vouched[0] + vouched[1], 64, b"VOUCH---" + bytes(16), there, CLIENT[1]) == 0
    text = CLIENT[0] + bytes(16) + vouch.raw + m.ready(b"DEALER")[8:]
    made = ctypes.create_string_buffer(len(text) + 16)
    nonce = (2).to_bytes(8)
    assert box(made, text, len(text), b"CurveZMQINITIATE" + nonce, there, short[1]) == 0
    return b"\x08INITIATE" + cookie + nonce + made.raw


def hello_by_hand(short: tuple[bytes, bytes]) -> bytes:
    made = ctypes.create_string_buffer(80)
    nonce = (1).to_bytes(8)
    box = library().crypto_box_easy
    assert box(made, bytes(64), 64, b"CurveZMQHELLO---" + nonce, SERVER[0], short[1]) == 0
    return b"\x05HELLO\x01\0" + bytes(72) + short[0] + nonce + made.raw


@pytest.mark.parametrize("wrong", ["", "server", "short-term key"])
def test_vouch_for_another_server_or_another_connection_is_refused(wrong: str) -> None:
    short = pair()
    theirs = server()
    welcome = body(theirs.receive(hello_by_hand(short), NOW))
    vouched = (
        pair()[0] if wrong == "short-term key" else short[0],
        pair()[0] if wrong == "server" else SERVER[0],
    )
    theirs.receive(initiate_by_hand(None, welcome, vouched, short), NOW)
    if wrong:
        assert (theirs.stage, theirs.failure, theirs.credentials) == (m.FAILED, "forged", None)
    else:
        assert (theirs.stage, theirs.credentials) == (m.ASKING, (CLIENT[0],))


def test_client_whose_short_term_key_is_its_long_term_key_is_refused() -> None:
    theirs = server()
    welcome = body(theirs.receive(hello_by_hand(CLIENT), NOW))
    theirs.receive(initiate_by_hand(None, welcome, (CLIENT[0], SERVER[0]), CLIENT), NOW)
    assert (theirs.stage, theirs.failure) == (m.FAILED, "malformed")


def test_cookie_of_another_connection_is_refused() -> None:
    keys = m.CurveKeys(*SERVER)
    _, first, initiate = begun(keys)
    _, second, other = begun(keys)
    second.receive(other[:9] + initiate[9:105] + other[105:], NOW)
    assert (second.stage, second.failure) == (m.FAILED, "stale-cookie")
    # The whole INITIATE of the first connection, replayed on another one.
    _, third, _ = begun(keys)
    third.receive(initiate, NOW)
    assert (third.stage, third.failure) == (m.FAILED, "stale-cookie")
    first.receive(initiate, NOW)
    assert first.stage == m.ASKING


@pytest.mark.parametrize(
    ("made_at", "age", "opens"),
    [
        (0.0, 0.0, True),
        (0.0, 59.9, True),
        (0.0, 60.0, False),
        (29.0, 30.9, True),
        (29.0, 31.0, False),
    ],
)
@pytest.mark.parametrize("busy", [False, True])
def test_cookie_opens_for_thirty_seconds_at_least_and_sixty_at_most(
    made_at: float, age: float, opens: bool, busy: bool
) -> None:
    """`made_at`: seconds after its key. With `busy`, other connections come meanwhile."""
    keys = m.CurveKeys(*SERVER)
    server(keys).receive(body(client().begin()), NOW)
    ours, theirs = client(), server(keys)
    welcome = theirs.receive(body(ours.begin()), NOW + made_at)
    initiate = body(ours.receive(body(welcome), NOW))
    if busy:
        for second in range(int(made_at), int(made_at + age) + 1, 5):
            server(keys).receive(body(client().begin()), NOW + second)
    theirs.receive(initiate, NOW + made_at + age)
    assert (theirs.stage == m.ASKING) is opens
    assert theirs.failure == (None if opens else "stale-cookie")


def test_nonce_of_initiate_is_one_more_than_that_of_hello() -> None:
    for nonce in (1, 3, 0, 2**64 - 1):
        _, theirs, initiate = begun()
        theirs.receive(initiate[:105] + nonce.to_bytes(8) + initiate[113:], NOW)
        assert (theirs.stage, theirs.failure) == (m.FAILED, "malformed")
    _, theirs, initiate = begun(first_nonce=77)
    theirs.receive(initiate, NOW)
    assert theirs.stage == m.ASKING


def test_hello_whose_nonce_leaves_none_for_messages_is_refused() -> None:
    theirs = server()
    theirs.receive(body(client(first_nonce=2**64 - 2).begin()), NOW)
    assert (theirs.stage, theirs.failure) == (m.FAILED, "malformed")


def test_command_out_of_turn_is_refused() -> None:
    hello = body(client().begin())
    theirs = server()
    theirs.receive(hello, NOW)
    theirs.receive(hello, NOW)
    assert (theirs.stage, theirs.failure) == (m.FAILED, "malformed")
    _, _, initiate = begun()
    theirs = server()
    theirs.receive(initiate, NOW)
    assert theirs.stage == m.FAILED


def test_initiate_and_ready_may_not_be_longer_than_a_command() -> None:
    ours, theirs, _ = begun()
    theirs.receive(b"\x08INITIATE" + bytes(5000), NOW)
    assert (theirs.stage, theirs.failure) == (m.FAILED, "malformed")
    ours.receive(b"\x05READY" + bytes(5000), NOW)
    assert (ours.stage, ours.failure) == (m.FAILED, "malformed")


def test_keys_that_do_not_belong_together_or_have_another_size_are_an_error() -> None:
    for public, secret in ((SERVER[0], CLIENT[1]), (b"", SERVER[1]), (SERVER[0], bytes(31))):
        with pytest.raises(ValueError, match="key"):
            m.CurveKeys(public, secret)
    with pytest.raises(ValueError, match="32 bytes"):
        m.CurveClient(b"x", *CLIENT, b"DEALER")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.booleans(), st.booleans())
def test_random_commands_only_fail(data: bytes, late: bool, prefixed: bool) -> None:
    curve = begun()[1] if late else server()
    ours = client()
    ours.begin()
    plain, null = m.PlainServer(b"ROUTER"), m.Null(b"ROUTER")
    names = [b"\x08INITIATE" if late else b"\x05HELLO", b"\x07WELCOME", b"\x05HELLO", b"\x05READY"]
    for one, name in zip((curve, ours, plain, null), names, strict=True):
        one.receive(name + data if prefixed else data, NOW)
        assert one.stage != m.DONE
        assert one.stage != m.ASKING or one in (plain, null)


# ── boxes ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def both() -> tuple[Any, Any]:
    ours, theirs = client(), server()
    shaken(ours, theirs)
    return ours.boxes, theirs.boxes


def test_box_that_is_repeated_reordered_removed_or_changed_is_refused(
    both: tuple[Any, Any],
) -> None:
    ours, theirs = both
    boxes = [ours.seal_frame(0, b"%d" % n)[2:] for n in range(4)]
    assert theirs.open_body(boxes[0]) == (0, b"0")
    assert theirs.open_body(boxes[0]) is None  # repeated
    assert theirs.open_body(boxes[2]) is None  # the one before it is missing
    for at in range(len(boxes[1])):
        assert theirs.open_body(flipped(boxes[1], at)) is None, at
    for size in range(len(boxes[1])):
        assert theirs.open_body(boxes[1][:size]) is None, size
    assert theirs.open_body(boxes[1] + b"\0") is None
    assert theirs.open_body(boxes[1]) == (0, b"1")
    assert theirs.open_body(boxes[3]) is None
    assert theirs.open_body(boxes[2]) == (0, b"2")


def test_box_of_the_other_direction_or_of_another_connection_is_refused(
    both: tuple[Any, Any],
) -> None:
    ours, theirs = both
    for _ in range(2):  # the same nonce in both directions
        theirs.seal_frame(0, b"x")
    assert theirs.open_body(theirs.seal_frame(0, b"x")[2:]) is None
    other = client()
    shaken(other, server())
    assert theirs.open_body(other.boxes.seal_frame(0, b"x")[2:]) is None
    assert theirs.open_body(ours.seal_frame(0, b"x")[2:]) == (0, b"x")


@pytest.mark.parametrize("at", [17, 255, 478, 479, 1000, 4999])
def test_changed_large_box_is_refused(both: tuple[Any, Any], at: int) -> None:
    ours, theirs = both
    made = ours.seal_frame(0, bytes(5000))[9:]
    assert theirs.open_body(flipped(made, 32 + at)) is None
    assert theirs.open_body(made) == (0, bytes(5000))


def bundle_vectors() -> list[dict[str, str]]:
    """The vectors of docs/spec/zmtp-bundle.md."""
    page = (Path(__file__).parents[3] / "docs" / "spec" / "zmtp-bundle.md").read_text()
    block = page.partition("```bundles\n")[2].partition("```")[0]
    found: list[dict[str, str]] = []
    for line in block.splitlines():
        name, _, value = line.partition(" ")
        if name == "nonce":
            found.append({})
        found[-1][name] = value.strip()
    return found


@pytest.mark.parametrize("vector", bundle_vectors(), ids=lambda vector: vector["nonce"])
def test_bundle_has_the_bytes_of_its_vector(vector: dict[str, str]) -> None:
    key, nonce = bytes.fromhex(vector["key"]), int(vector["nonce"])
    frames, wire = bytes.fromhex(vector["frames"]), bytes.fromhex(vector["wire"])
    ours, theirs = Boxes(), Boxes()
    ours.start(key, as_server=False, sent=nonce - 1, received=0)
    theirs.start(key, as_server=True, sent=0, received=nonce - 1)
    assert ours.seal_bundle(frames) == wire
    assert theirs.open_body(wire[9:]) == (0x40, frames)


def test_page_of_bundles_has_vectors() -> None:
    assert len(bundle_vectors()) == 3
