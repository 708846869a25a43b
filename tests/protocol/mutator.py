"""An endless, seeded stream of messages that peers should not send, and a few that they may.

    python -m tests.protocol.mutator --messages 1000000 [--seed 1]

puts them through recognition and every reader, and fails unless each gives a result or raises
`RemoteProtocolError` for a reason that docs/spec/recognition.md lists.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from random import Random

from majordomus.errors import RemoteProtocolError
from majordomus.protocol import delphi, mdp03, metadata, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.recognise import client_or_worker, recognise
from majordomus.protocol.spec import Dialect, Frame
from tests import headers
from tests.protocol import sides
from tests.protocol.vectors import SPEC

Message = list[Frame]
Mutation = Callable[[Random, Message], Message]

NAMES = (
    b"echo",
    b"time",
    b"mmi.service",
    b"mmi.workers",
    b"mmi.none",
    b"titanic.request",
    b"a" * 255,
)
BAD_FRAMES = (
    b"",
    b"\x00",
    b"\xff\xfe",
    b"x" * 256,
    b"MDPC01",
    b"MDPW02",
    spec.MDP03_MAGIC,
    b"\xed\xa0\x80",
)
LOADS = (b"0.42 0.31 0.20 1/234 5678\n", b"0,7", b"", b"n/a", b"nan", b"1e999", b"1" * 4097)
MAPS = (
    metadata.pack({}),
    metadata.pack({"type": "text/plain", "trace": "00-0af7-b7ad-01"}),
    metadata.pack({"a": {"b": {"c": {}}}}),
    metadata.pack({"token": b"t" * 4000}),
    b"\x81\xa1a" * 300 + b"\x80",
    b"\x81\xa1a" * 3000,
    b"\x81\x01\x02",
    b"\x82\xa1a\x01\xa1a\x02",
    b"\xc1",
    b"\x81\xa1a\xd6\xff\x00\x00\x00\x00",
    b"\xdf\xff\xff\xff\xff",
    b"x" * 9000,
)


# Valid messages


def _body(random: Random) -> Message:
    return [random.randbytes(random.choice((0, 1, 4, 16))) for _ in range(random.randrange(4))]


def _legacy(random: Random) -> Message:
    dialect = random.choice(tuple(LEGACY))
    number, direction = random.choice(sides.COMMANDS[dialect])
    load = random.choice((None, 0.0, 0.42, -1.0))
    handle = random.choice((random.randbytes(8), _id(random).to_bytes(8, "big")))
    said = sides.Content(random.choice(NAMES), handle, _body(random), load, b"\x00worker")
    return sides.WRITERS[number, direction](LEGACY[dialect], said)


def _loaded(random: Random) -> Message:
    frames = [b"", spec.DELPHI_HEARTBEAT, random.choice(NAMES), random.choice(LOADS)]
    return [*frames, delphi.digest(frames)]


def _id(random: Random) -> int:
    """Small ids of both halves, so that some are those of open conversations."""
    kind = random.randrange(4)
    if kind == 3:
        return random.getrandbits(64)
    return random.randrange(8) | (spec.BROKER_ID_BIT if kind == 2 else 0)


def _mdp03(random: Random) -> Message:
    flags = random.choice((0, 0, 0, spec.ONE_WAY, spec.ONCE, spec.FAIL_FAST, random.getrandbits(8)))
    code = random.choice((0, 1, 200, 500, 65535, random.getrandbits(16)))
    ttl = random.choice((0, 1, 5000, random.getrandbits(32)))
    address = random.choice((b"", b"", b"\x0a\x01", random.randbytes(8)))
    command = random.choice((*spec.COMMAND_NAMES, 0, 17, random.getrandbits(8)))
    plain = flags & ~(spec.METADATA | spec.BROKER_METADATA)
    name = random.choice((b"", *NAMES))
    header = bytearray(mdp03.pack(command, plain, code, _id(random), ttl, name, address))
    if random.random() < 0.3:
        header[5] |= random.choice((spec.METADATA, spec.BROKER_METADATA, 0x41, 0))
        header += b"".join(random.choices(MAPS, k=random.choice((1, 1, 2))))
    return [bytes(header), *_body(random)]


def _random_frames(random: Random) -> Message:
    sizes = (0, 1, 4, 6, 22, 30, 300)
    return [random.randbytes(random.choice(sizes)) for _ in range(random.randrange(12))]


def _other_version(random: Random) -> Message:
    return [b"MDP" + random.randbytes(random.randrange(1, 30))]


# Mutations


def _flip_bit(random: Random, frames: Message) -> Message:
    at = _one_of(random, frames)
    if not frames[at]:
        return frames
    changed = bytearray(frames[at])
    changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return [*frames[:at], bytes(changed), *frames[at + 1 :]]


def _truncate(random: Random, frames: Message) -> Message:
    at = _one_of(random, frames)
    cut = frames[at][: random.randrange(len(frames[at]) + 1)]
    return [*frames[:at], cut, *frames[at + 1 :]]


def _extend(random: Random, frames: Message) -> Message:
    at = _one_of(random, frames)
    return [*frames[:at], frames[at] + random.randbytes(random.randrange(1, 9)), *frames[at + 1 :]]


def _replace(random: Random, frames: Message) -> Message:
    at = _one_of(random, frames)
    return [*frames[:at], random.choice(BAD_FRAMES), *frames[at + 1 :]]


def _drop(random: Random, frames: Message) -> Message:
    at = _one_of(random, frames)
    return frames[:at] + frames[at + 1 :]


def _double(random: Random, frames: Message) -> Message:
    at = _one_of(random, frames)
    return [*frames[:at], frames[at], *frames[at:]]


def _swap(random: Random, frames: Message) -> Message:
    one, other = _one_of(random, frames), _one_of(random, frames)
    swapped = list(frames)
    swapped[one], swapped[other] = swapped[other], swapped[one]
    return swapped


def _cut(random: Random, frames: Message) -> Message:
    return frames[: random.randrange(len(frames) + 1)]


def _wrong_hash(random: Random, frames: Message) -> Message:
    return [*frames[:-1], random.choice((spec.DELPHI_NO_HASH, random.randbytes(4)))]


def _envelope(random: Random, frames: Message) -> Message:
    count = random.choice((1, 1, 2, 8, 9))
    envelope = [random.randbytes(random.choice((1, 4, 5, 255, 256))) for _ in range(count)]
    return [*envelope, *random.choice(([], [b""])), *frames]


def _one_of(random: Random, frames: Message) -> int:
    """An index; the first frames, where the meaning is, more often than the rest."""
    return min(random.randrange(len(frames)), random.randrange(len(frames)))


SOURCES = (
    _legacy,
    _legacy,
    _legacy,
    _loaded,
    _mdp03,
    _mdp03,
    _mdp03,
    _random_frames,
    _other_version,
)
MUTATIONS: tuple[Mutation, ...] = (
    *(_flip_bit, _truncate, _extend, _replace, _drop, _double, _swap, _cut, _wrong_hash, _envelope),
)
ROUNDS = (0, 0, 1, 1, 1, 2, 3, 6)


def mutations(seed: int) -> Iterator[list[bytes]]:
    """Messages of all dialects, commands and sides without end: the same for the same seed.

    About a quarter is valid. Of the mutated Delphi messages half get a right hash again, so that
    what stands behind the hash is reached.
    """
    random = Random(seed)
    while True:
        frames = random.choice(SOURCES)(random)
        hashed = len(frames) > 2 and not frames[0] and len(frames[1]) == 1
        for _ in range(random.choice(ROUNDS)):
            if frames:
                frames = random.choice(MUTATIONS)(random, frames)
        if hashed and len(frames) > 1 and random.random() < 0.5:
            frames = [*frames[:-1], delphi.digest(frames[:-1])]
        yield frames


# The runner

READERS = tuple(
    reader
    for codec in (*LEGACY.values(), delphi.UNVERIFIED)
    for reader in (codec.read_broker, codec.read_client, codec.read_worker)
)


def documented_reasons() -> frozenset[str]:
    """The reasons that docs/spec/recognition.md lists."""
    section = (SPEC / "recognition.md").read_text(encoding="utf-8").split("## ")
    table = next(part for part in section if part.startswith("Reasons"))
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return frozenset(key for row in rows for key in re.findall(r"`([a-z0-9-]+)`", row))


def read_all(frames: Message, seen: Counter[str]) -> None:
    """Put one message through recognition and every reader; `seen` counts dialects and reasons."""
    _count(seen, _as_recognised, frames, seen)
    for reader in READERS:
        _count(seen, reader, frames)
    for frame in frames[:2]:
        _count(seen, _read_header, frame)


def _as_recognised(frames: Message, seen: Counter[str]) -> None:
    dialect, at = recognise(frames)
    seen[dialect] += 1
    client_or_worker(frames, dialect, at)
    if dialect is Dialect.MDP03:
        _read_header(frames[at])
    else:
        LEGACY[dialect].read_broker(frames[at:])
    seen[f"{dialect} valid"] += 1


def _read_header(header: Frame) -> None:
    parsed = headers.parse(header)
    if mdp03.pack(*parsed) != header:
        raise AssertionError(f"parsed and packed, this is another header: {header.hex()}")
    flags, rest = parsed[1], parsed[7]
    ours, theirs = metadata.split(rest, flags)
    raw = metadata.split_raw(rest, flags)
    if b"".join(raw) != rest or (bool(ours) > bool(raw[0])) or (bool(theirs) > bool(raw[1])):
        raise AssertionError(f"metadata are parted wrongly: {rest.hex()}")


def _count(seen: Counter[str], reader: Callable[..., object], *arguments: object) -> None:
    try:
        reader(*arguments)
    except RemoteProtocolError as error:
        seen[error.reason] += 1


def run(messages: int, seed: int) -> Counter[str]:
    """`messages` messages through every reader; what they gave, by dialect and by reason."""
    seen: Counter[str] = Counter()
    for frames in islice(mutations(seed), messages):
        try:
            read_all(frames, seen)
        except Exception as error:
            error.add_note(f"seed {seed}, frames {[frame.hex() for frame in frames]}")
            raise
    return seen


def reasons(seen: Counter[str]) -> set[str]:
    """What of `seen` are reasons, and not dialects."""
    dialects = {dialect.value for dialect in Dialect}
    return {key for key in seen if key.split()[0] not in dialects}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = time.monotonic()
    seen = run(options.messages, options.seed)
    for key, count in seen.most_common():
        print(f"{count:>12,}  {key}")
    undocumented = reasons(seen) - documented_reasons()
    if undocumented:
        raise SystemExit(f"reasons that no page lists: {sorted(undocumented)}")
    print(f"{options.messages:,} messages in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
