"""`majordomus completion` prints click's completion script."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command(short_help="Print the shell's completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that completes majordomus in SHELL.

    \b
    bash   eval "$(majordomus completion bash)"                in ~/.bashrc
    zsh    eval "$(majordomus completion zsh)"                 in ~/.zshrc
    fish   majordomus completion fish | source                 in ~/.config/fish/config.fish
    """
    from majordomus.cli import COMPLETE, PROGRAM, majordomus

    completion = get_completion_class(shell)
    if completion is None:
        raise click.ClickException(f"click has no completion for {shell}")
    click.echo(completion(majordomus, {}, PROGRAM, COMPLETE).source())
