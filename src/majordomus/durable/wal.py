"""The file of a write-ahead log, as far as SQLite does not report it.

A log is a header of 32 bytes and frames of 24 bytes and a page each. Frames of this round of the
log have the salts of the header; those behind them are of a round before
(https://sqlite.org/fileformat2.html#the_write_ahead_log).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

HEADER: Final = 32
FRAME_HEADER: Final = 24
SALTS: Final = slice(16, 24)
SALTS_OF_A_FRAME: Final = slice(8, 16)


def salts(log: Path) -> bytes:
    """The salts of a log: others when it was begun anew. Empty without a log."""
    try:
        with log.open("rb") as file:
            return file.read(HEADER)[SALTS]
    except OSError:
        return b""


def frames(log: Path, page: int) -> int:
    """How many frames were written in this round of the log, whether they are whole or not.

    A frame counts when one of its two salts is right, so that one damaged byte hides none. When the
    header itself is damaged, the first frame stands for it.
    """
    found: list[bytes] = []
    try:
        with log.open("rb", buffering=0) as file:  # a buffer would read the pages as well
            header = file.read(HEADER)
            while len(head := file.read(FRAME_HEADER)) == FRAME_HEADER:
                found.append(head[SALTS_OF_A_FRAME])
                file.seek(page, 1)
    except OSError:
        return 0
    if not found:
        return 0
    wanted = header[SALTS] if _is_whole(header) else found[0]
    last = 0
    for number, one in enumerate(found, 1):
        if one[:4] == wanted[:4] or one[4:] == wanted[4:]:
            last = number
    return last


def _is_whole(header: bytes) -> bool:
    """Whether the checksum of a header is right."""
    if len(header) < HEADER:
        return False
    order = ">" if header[3] & 1 else "<"
    words = struct.unpack(f"{order}6I", header[:24])
    first = second = 0
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return struct.unpack(">2I", header[24:]) == (first, second)
