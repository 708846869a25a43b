"""``python -m majordomus.cli.child …`` runs a command line of `majordomus` in a process that ends
with its parent."""

from __future__ import annotations

from majordomus.cli import main
from majordomus.cli.processes import watch_parent

if __name__ == "__main__":
    watch_parent()
    main()
