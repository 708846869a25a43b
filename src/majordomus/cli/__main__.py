"""``python -m majordomus.cli`` is the command `majordomus`."""

from majordomus.cli import main

main()
