"""What version of this package runs."""

from __future__ import annotations

import contextlib
from importlib import metadata


def version() -> str:
    """Of this package; empty when it runs from a source tree that was never installed."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("majordomus")
    return ""
