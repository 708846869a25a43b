"""Remove from a build folder the modules that the source no longer has.

    python packaging/prune_build.py build/compiled

setuptools never removes them, and would pack them into the next wheel.
"""

from __future__ import annotations

import sys
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src"


def prune(folder: Path) -> None:
    """Remove every module below `folder` without a .py or .pyx file in the source."""
    for path in sorted(folder.rglob("*")):
        stem = SOURCE / path.relative_to(folder).parent / path.name.partition(".")[0]
        known = stem.with_suffix(".py").exists() or stem.with_suffix(".pyx").exists()
        if path.suffix in (".py", ".so", ".pyd") and not known:
            path.unlink()


if __name__ == "__main__":
    prune(Path(sys.argv[1]))
