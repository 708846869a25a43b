"""For any frames: a result, or RemoteProtocolError for a documented reason.

FUZZ=full takes 20,000 examples in all; `python -m tests.protocol.mutator` a million messages.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from majordomus.protocol import delphi, spec
from majordomus.protocol.spec import Dialect
from tests.protocol import mutator, vectors
from tests.protocol.fuzzing import many
from tests.protocol.mutator import documented_reasons, mutations, read_all

VALID = [
    vector.frames
    for page in vectors.PAGES.values()
    for vector in vectors.valid(page)
    if vector.name not in ("HASH", "METADATA")
]
REASONS = documented_reasons()
telling = [b"", b"\x01", b"\x02", b"\x03", b"\x04", b"\x05", b"\x06", b"MDPC01", b"MDPW01"]
telling += [b"MDPC02", b"MDPW02", spec.MDP03_MAGIC, b"MDP\x04", b"echo", b"\xff"]
frame = st.sampled_from(telling) | st.binary(max_size=40)
arbitrary = st.lists(frame, max_size=12)


def _survives(frames: list[bytes]) -> None:
    seen: Counter[str] = Counter()
    read_all(frames, seen)
    assert mutator.reasons(seen) <= REASONS


@many
@given(arbitrary)
def test_arbitrary_frames_raise_only_documented_errors(frames: list[bytes]) -> None:
    _survives(frames)


@many
@given(arbitrary)
def test_arbitrary_frames_with_a_valid_hash_raise_only_documented_errors(
    frames: list[bytes],
) -> None:
    frames = [b"", *frames]
    _survives([*frames, delphi.digest(frames)])


@many
@given(st.binary(max_size=60), st.binary(max_size=40))
def test_arbitrary_header_and_metadata_raise_only_documented_errors(
    head: bytes, rest: bytes
) -> None:
    _survives([spec.MDP03_MAGIC + head])
    flags = head[0] if head else 0
    _survives([spec.MDP03_MAGIC + bytes([2, flags, *bytes(16)]) + rest])


@many
@given(st.sampled_from(VALID), st.data())
def test_truncated_messages_raise_only_documented_errors(frames: list[bytes], data: Any) -> None:
    count = data.draw(st.integers(0, len(frames)))
    cut = frames[:count]
    if cut:
        cut[-1] = cut[-1][: data.draw(st.integers(0, len(cut[-1])))]
    _survives(cut)


@many
@given(st.sampled_from(VALID), st.integers(0, 2**32), st.integers(1, 5), st.booleans())
def test_mutated_messages_raise_only_documented_errors(
    frames: list[bytes], seed: int, rounds: int, hashed: bool
) -> None:
    random = Random(seed)
    for _ in range(rounds):
        if frames:
            frames = random.choice(mutator.MUTATIONS)(random, frames)
    _survives([*frames[:-1], delphi.digest(frames[:-1])] if hashed else frames)


def test_mutator_reaches_every_dialect_and_every_reason_and_breaks_nothing() -> None:
    seen = mutator.run(20_000, seed=1)
    assert mutator.reasons(seen) == REASONS
    for dialect in Dialect:
        assert seen[f"{dialect} valid"] > 200, dialect


def test_mutator_repeats_itself_for_a_seed_and_not_for_another() -> None:
    def first(seed: int) -> list[list[bytes]]:
        return list(islice(mutations(seed), 200))

    assert first(1) == first(1)
    assert first(1) != first(2)


def test_runner_fails_when_a_reader_raises_something_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(frames: list[bytes]) -> None:
        raise IndexError

    monkeypatch.setattr(mutator, "READERS", (broken,))
    with pytest.raises(IndexError):
        mutator.run(1, seed=1)
