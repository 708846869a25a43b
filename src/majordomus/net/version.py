"""The version of this package, as it was installed."""

from __future__ import annotations

import contextlib
from importlib import metadata


def version() -> str:
    """Return the version; empty in a source tree that was never installed."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("majordomus")
    return ""
