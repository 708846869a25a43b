"""The Delphi test peer, checked against messages recorded from real peers."""

from __future__ import annotations

import pytest

from tests.peers.delphi import murmur2a, seal, unseal
from tests.peers.loop import NotUnderstoodError

RECORDED = """
- 01 4d7953657276696365 d39224de
- 01 30303642384234353637 148ac035
- 02 4d7953657276696365 302e343220302e333120302e323020312f33343520363738390a ca8b5550
- 02 191f16ee
- 05 4d7953657276696365 48656c6c6f20576f726c64 255e0e2a
- 05 006b8b4567 - 48656c6c6f20576f726c64 34f5b356
- 04 4d7953657276696365 006b8b4567 4869 e56cb5eb
- 05 4d7953657276696365 4869 0f3e7b33
"""


def vectors(text: str) -> list[list[bytes]]:
    """Parse messages: one line each, its frames in hex, separated by spaces; `-` is empty."""
    lines = text.strip().splitlines()
    return [[b"" if word == "-" else bytes.fromhex(word) for word in x.split()] for x in lines]


@pytest.mark.parametrize("frames", vectors(RECORDED))
def test_peer_makes_and_verifies_the_hash_of_every_recorded_message(frames: list[bytes]) -> None:
    assert seal(frames[:-1]) == frames
    assert unseal(frames) == frames[:-1]


@pytest.mark.parametrize(
    ("data", "wanted"),
    [(b"", "00000000"), (b"a", "8b880308"), (b"abcd", "473c195c"), (b"abcde", "4d455432")],
)
def test_the_hash_of_short_texts_is_the_recorded_one(data: bytes, wanted: str) -> None:
    assert murmur2a(data).to_bytes(4, "little").hex() == wanted


def test_peer_rejects_a_message_with_a_wrong_hash() -> None:
    with pytest.raises(NotUnderstoodError, match="hash"):
        unseal([b"", b"\x02", b"\0\0\0\0"])
