"""Programs of others that tests of this folder start."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import urllib.parse

import pytest


def get(url: str, **headers: str) -> tuple[int, str]:
    """Status and text of an HTTP answer. Raises: OSError when nothing listens."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}", headers=headers)
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    finally:
        connection.close()


def needs(program: str) -> str:
    """The path of `program`. Without it the test is skipped; with REAL_PARTS=required it fails."""
    found = shutil.which(program)
    if found is None:
        if os.environ.get("REAL_PARTS") == "required":
            pytest.fail(f"{program} must be installed in CI")
        pytest.skip(f"{program} is not installed (Debian: prometheus)")
    return found


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
