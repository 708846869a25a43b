"""Pairs and their files."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from majordomus.net.broker.security import curve
from majordomus.security.certificates import Certificate


def overwrite_unseen(path: Path, text: str) -> None:
    """Write a file in place; its size, inode and modification time stay as they were."""
    before = path.stat()
    assert len(text.encode()) == before.st_size
    time.sleep(0.02)  # the kernel's clock of files moves in steps of some milliseconds
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.fixture
def pair() -> Certificate:
    return curve.make({"name": "ann", "user": "ann"})
