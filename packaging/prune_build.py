"""Remove from a build folder what does not belong into a wheel.

    python packaging/prune_build.py build/compiled

These are the modules that the source no longer has, and the source of extensions. setuptools never
removes a file of a build folder, and packs all of them into the next wheel.
"""

from __future__ import annotations

import sys
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src"


def prune(folder: Path) -> None:
    """Remove from `folder` the modules without a .py or .pyx file in the source, .pyx and .pxd."""
    for path in sorted(folder.rglob("*")):
        stem = SOURCE / path.relative_to(folder).parent / path.name.partition(".")[0]
        known = stem.with_suffix(".py").exists() or stem.with_suffix(".pyx").exists()
        stale = path.suffix in (".py", ".so", ".pyd") and not known
        if stale or path.suffix in (".pyx", ".pxd", ".c"):
            path.unlink()


if __name__ == "__main__":
    prune(Path(sys.argv[1]))
