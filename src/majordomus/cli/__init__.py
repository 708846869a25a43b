"""The command `majordomus`: one module for each command, imported only when it runs.

Every error is one line on stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted by
Ctrl-C.

__main__: ``python -m majordomus.cli``
config: merges file, variables and flags to a broker's settings
options: options that several commands have
output: prints tables, JSON and error lines, and formats the log
remote: the flags that name a broker, and one question to it
contracts: the contracts of a broker, a module or a file
profiles: named brokers with their keys, in a file of the user
completing: what the shell completes from a running broker
target: imports MODULE:NAME, the current folder first
processes: starts processes that end with their parent, signals them and reaps them
child: runs a command line in such a process
run: commands that run a broker, workers, a proxy, a benchmark or the demo
inspect: commands that ask a running broker, call it or check this machine
manage: commands that make or check keys, passwords, tokens, access rules and .proto text
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

import click

from majordomus.cli.output import WarningLines, complain, for_command_line
from majordomus.errors import ConfigurationError, LocalProtocolError, MajordomusError

PROGRAM: Final = "majordomus"
COMPLETE: Final = "_MAJORDOMUS_COMPLETE"
"""Set by the shell's completion script, and read by click."""

DONE: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
INTERRUPTED: Final = 130
"""As a shell reports a program that SIGINT has ended."""

SERVERS: Final = ("broker", "worker", "metrics", "proxy", "titanic")
"""Commands that serve whether or not anybody reads what they print."""

COMMANDS: Final = {
    "broker": "Run a broker.",
    "worker": "Run a worker's processes and keep them alive.",
    "call": "Call a service and print its reply.",
    "describe": "Show what services take and return.",
    "subscribe": "Print the events of a pattern of topics.",
    "publish": "Publish an event to a topic.",
    "services": "List the services of a broker.",
    "workers": "List the workers of a broker.",
    "top": "Watch the services, workers and clients of a broker.",
    "tail": "Print requests as they end.",
    "metrics": "Serve the metrics of brokers to Prometheus.",
    "explain": "Show what happened to a request.",
    "durable": "Inspect, end and check durable requests.",
    "logs": "Show or follow the entries of the cloud logger.",
    "doctor": "Check this machine and installation.",
    "token": "Make keys for tokens; check and revoke tokens.",
    "acl": "Check access rules, and show which one decides.",
    "proto": "Print the .proto text of a module's records.",
    "diff": "Compare contracts: may callers stay as they are?",
    "stubs": "Write typed Python clients of services.",
    "proxy": "Run or control a ZeroMQ proxy.",
    "titanic": "Serve RFC 9 at a broker without a store.",
    "bench": "Measure requests per second and latency through a broker.",
    "demo": "Show a broker and its workers, and kill one worker.",
    "keygen": "Make a CURVE key pair.",
    "passwd": "Set the password of a user in a file.",
    "profile": "Name a broker and its keys, for --profile.",
    "completion": "Print the shell's completion script.",
}
"""Name → help. The list of commands is printed from this table, without importing a command."""

PACKAGES: Final = {
    "run": ("broker", "worker", "metrics", "proxy", "titanic", "bench", "demo"),
    "inspect": (
        "call",
        "describe",
        "subscribe",
        "publish",
        "services",
        "workers",
        "top",
        "tail",
        "explain",
        "durable",
        "logs",
        "doctor",
    ),
    "manage": (
        "token",
        "acl",
        "proto",
        "diff",
        "stubs",
        "keygen",
        "passwd",
        "profile",
        "completion",
    ),
}
"""Sub-package of majordomus.cli → the commands that it contains."""

PACKAGE_OF: Final = {name: package for package, names in PACKAGES.items() for name in names}


class LazyGroup(click.Group):
    """A group that knows its commands' names without importing their modules."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order in which a new user needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import ``majordomus.cli.<package>.<name>`` and return its `command`.

        Returns None for an unknown name.
        """
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(
            f"majordomus.cli.{PACKAGE_OF[cmd_name]}.{cmd_name}"
        ).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands in ``--help`` from COMMANDS, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("majordomus")
        except PackageNotFoundError:
            number = "(not installed)"
        click.echo(f"majordomus {number}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    no_args_is_help=False,
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and exit.",
)
@click.option("--traceback", is_flag=True, help="Print the traceback of an error.")
@click.pass_context
def majordomus(ctx: click.Context, traceback: bool) -> None:
    """Run brokers and workers, call services, and inspect a running broker."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    _replace_closed_streams(given)
    with contextlib.suppress(BrokenPipeError):
        sys.exit(run_command(given))
    # The reader of our output has ended, as `head` does. Print nothing; no later flush may fail.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(FAILED)


def _replace_closed_streams(arguments: list[str]) -> None:
    """Occupy the descriptors of streams that the shell has closed, as ``<&-`` and ``>&-`` do: else
    a socket or a file gets the number of one.

    `sys.stdin` remains None, which `stdin_or_refuse` complains about. What is printed to a closed
    stdout ends the command, as a reader does that has left; a server goes on, and prints nothing.
    """
    if sys.stdin is None:
        _occupy(0, os.open(os.devnull, os.O_RDONLY))
    if sys.stdout is None:
        names = [word for word in arguments if word != "--traceback"]
        if names[:1] and names[0] in SERVERS:
            descriptor = os.open(os.devnull, os.O_WRONLY)
        else:
            reader, descriptor = os.pipe()
            os.close(reader)
        _occupy(1, descriptor)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        _occupy(2, os.open(os.devnull, os.O_WRONLY))
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _occupy(number: int, descriptor: int) -> None:
    os.dup2(descriptor, number)
    if descriptor != number:
        os.close(descriptor)


def run_command(arguments: list[str]) -> int:
    """Run one command, print the line for its error, and return the exit code.

    Raises: BrokenPipeError when stdout is closed; any error when ``--traceback`` was given.
    """
    # Without a handler, logging would print warnings to stderr in a format of its own.
    logging.getLogger("majordomus").addHandler(logging.NullHandler())
    logging.getLogger("majordomus.credentials").addHandler(WarningLines(logging.WARNING))
    if arguments[:1] == ["--traceback"]:
        return int(_invoke(arguments[1:]) or DONE)
    try:
        code = _invoke(arguments)
        sys.stdout.flush()
    except click.UsageError as error:
        return _refuse(error)
    except click.ClickException as error:
        return _end(arguments, error.format_message(), error.exit_code)
    except (ConfigurationError, LocalProtocolError) as error:
        return _end(arguments, str(error), WRONG_USAGE)
    except MajordomusError as error:
        return _end(arguments, str(error) or type(error).__name__, FAILED)
    except (KeyboardInterrupt, click.Abort):
        return _end(arguments, "interrupted", INTERRUPTED)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _end(arguments, str(error), FAILED)
    except Exception as error:
        name = type(error).__name__
        return _end(
            arguments, f"{name}: {error} (run majordomus --traceback … for details)", FAILED
        )
    return int(code or DONE)


def _invoke(arguments: list[str]) -> int | None:
    """Do what click's `main` does. That one prints an empty line when it is interrupted."""
    completion = os.environ.get(COMPLETE)
    if completion:
        from click.shell_completion import shell_complete

        return shell_complete(majordomus, {}, PROGRAM, COMPLETE, completion)
    try:
        with majordomus.make_context(PROGRAM, arguments or ["--help"]) as ctx:
            result: int | None = majordomus.invoke(ctx)
    except click.exceptions.Exit as end:
        return end.exit_code
    return result


def _refuse(error: click.UsageError) -> int:
    path = error.ctx.command_path if error.ctx else "majordomus"
    if isinstance(error, click.BadParameter) and error.ctx and error.param:
        source = error.ctx.get_parameter_source(error.param.name or "")
        if source is click.core.ParameterSource.ENVIRONMENT and error.param.envvar:
            names = error.param.envvar
            error.param_hint = names if isinstance(names, str) else " or ".join(names)
    message = error.format_message().rstrip(".")
    complain(f"{path}: {message} (see {path} --help)")
    return WRONG_USAGE


def _end(arguments: list[str], sentence: str, code: int) -> int:
    name = arguments[0] if arguments and arguments[0] in COMMANDS else ""
    complain(f"majordomus {name}".rstrip() + f": {for_command_line(sentence)}")
    return code
