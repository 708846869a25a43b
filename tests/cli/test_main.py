"""The command as a whole: help, version, exit codes, one line for whatever goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from majordomus import cli
from majordomus.errors import BrokerLost, ConfigurationError, DeadlineExceeded, RemoteProtocolError
from tests.cli.shell import LIMIT, SOURCE, Shell


def end_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    def invoke(_arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "_invoke", invoke)
    return cli.run_command(["doctor"])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigurationError("no such thing"), 2, "majordomus doctor: no such thing"),
        (DeadlineExceeded("too\nlate"), 1, "majordomus doctor: 408 too late"),
        (BrokerLost(), 1, "majordomus doctor: BrokerLost"),
        (RemoteProtocolError("wrong-hash"), 1, "majordomus doctor: wrong-hash"),
        (click.ClickException("broken: clock"), 1, "majordomus doctor: broken: clock"),
        (
            click.UsageError("Missing argument."),
            2,
            "majordomus: Missing argument (see majordomus --help)",
        ),
        (KeyboardInterrupt(), 130, "majordomus doctor: interrupted"),
        (
            OSError(28, "No space left on device"),
            1,
            "majordomus doctor: [Errno 28] No space left on device",
        ),
        (
            ZeroDivisionError("ours"),
            1,
            "majordomus doctor: ZeroDivisionError: ours (run majordomus --traceback … for details)",
        ),
        (ConfigurationError("\x1b[31mred"), 2, "majordomus doctor: \\x1b[31mred"),
    ],
)
def test_every_failure_is_one_line_and_an_exit_code(
    error: BaseException,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert end_with(monkeypatch, error) == code
    assert capsys.readouterr() == ("", line + "\n")


def test_traceback_flag_lets_the_error_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def invoke(_arguments: list[str]) -> int:
        raise ConfigurationError("x")

    monkeypatch.setattr(cli, "_invoke", invoke)
    with pytest.raises(ConfigurationError):
        cli.run_command(["--traceback", "doctor"])


def test_help_lists_every_command_and_exits_0(shell: Shell) -> None:
    done = shell.run("--help")
    assert (done.code, done.err) == (0, "")
    for name, what in cli.COMMANDS.items():
        assert f"  {name:<10}  {what}\n" in done.out.decode()


def test_short_flag_of_the_help_is_understood_everywhere(shell: Shell) -> None:
    assert shell.run("-h") == shell.run("--help")
    done = shell.run("call", "-h")
    assert done == shell.run("call", "--help")
    assert done.code == 0


def test_no_command_at_all_shows_the_help(shell: Shell) -> None:
    assert shell.run() == shell.run("--help")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_its_module_its_line_and_its_help(name: str) -> None:
    command = cli.majordomus.get_command(click.Context(cli.majordomus), name)
    assert command is not None
    assert command.short_help == cli.COMMANDS[name]
    text = command.get_help(click.Context(command))
    assert "--help" in text
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    assert [option.name for option in options if not option.help] == []


def test_version_is_printed(shell: Shell) -> None:
    done = shell.run("--version")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(b"majordomus ")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["brokr"], "majordomus: No such command 'brokr'"),
        (["doctor", "--nope"], "majordomus doctor: No such option"),
        (["call"], "majordomus call: Missing argument 'SERVICE'"),
        (
            ["worker", "x:y", "--processes", "0"],
            "majordomus worker: Invalid value for '--processes'",
        ),
        (["call", "x", "--timeout", "soon"], "majordomus call: Invalid value for '--timeout'"),
        (["call", "x", "--dialect", "mdp99"], "majordomus call: Invalid value for '--dialect'"),
    ],
)
def test_wrong_usage_is_one_line_on_stderr_and_exit_2(
    arguments: list[str], line: str, shell: Shell
) -> None:
    done = shell.run(*arguments)
    assert (done.code, done.out) == (2, b"")
    assert done.err.startswith(line)
    assert done.err.count("\n") == 1


def test_help_and_completion_load_neither_zmq_nor_rich_nor_msgspec() -> None:
    program = (
        "import sys\n"
        "from majordomus.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit: pass\n"
        "slow = {'zmq', 'rich', 'msgspec', 'asyncio', 'majordomus.net'}\n"
        "print(sorted(slow & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        timeout=LIMIT,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == b"[]"


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
def test_completion_script_is_printed_for_each_shell(shell_name: str, shell: Shell) -> None:
    done = shell.run("completion", shell_name)
    assert (done.code, done.err) == (0, "")
    assert b"_MAJORDOMUS_COMPLETE=" + shell_name.encode() + b"_complete" in done.out


def test_shell_completes_the_names_of_commands(shell: Shell) -> None:
    done = shell.run(
        _MAJORDOMUS_COMPLETE="bash_complete", COMP_WORDS="majordomus wor", COMP_CWORD="1"
    )
    assert done.out.split() == [b"plain,worker", b"plain,workers"]


def test_shell_completes_the_values_of_a_flag(shell: Shell) -> None:
    done = shell.run(
        _MAJORDOMUS_COMPLETE="bash_complete",
        COMP_WORDS="majordomus call echo --dialect mdp0",
        COMP_CWORD="4",
    )
    assert done.out.split() == [b"plain,mdp01", b"plain,mdp02", b"plain,mdp02d", b"plain,mdp03"]


def test_reader_that_leaves_early_sees_no_complaint(shell: Shell) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "majordomus.cli", "doctor"],
            stdout=writer,
            stderr=subprocess.PIPE,
            env=shell.environment,
            cwd=shell.folder,
            timeout=LIMIT,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("given", ["nan", "inf", "-inf", "1e308", "-1"])
@pytest.mark.parametrize(
    "command",
    [
        ["top", "--interval"],
        ["tail", "--slower"],
        ["bench", "--seconds"],
        ["call", "x", "--timeout"],
        ["token", "revoke", "one", "--revocations", "revoked", "--lifetime"],
    ],
)
def test_seconds_that_are_no_duration_are_refused_in_one_line(
    command: list[str], given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run_command([*command, given]) == 2
    out, error = capsys.readouterr()
    assert (out, error.count("\n")) == ("", 1)
    assert f"Invalid value for '{command[-1]}'" in error


def run_in_bash(shell: Shell, command: str) -> tuple[int, list[str], list[str]]:
    """How `majordomus` ends after a command line of bash, its stdout and its stderr."""
    running = shell.adopt(["bash", "-c", f"exec {sys.executable} -m majordomus.cli {command}"])
    return running.process.wait(LIMIT), running.out.rest(), running.err.rest()


def test_wrong_value_of_a_variable_is_refused_by_the_name_of_the_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAJORDOMUS_TIMEOUT", "soon")
    assert cli.run_command(["services"]) == 2
    assert capsys.readouterr().err == (
        "majordomus services: Invalid value for MAJORDOMUS_TIMEOUT: 'soon' is not a valid number of"
        " seconds (see majordomus services --help)\n"
    )


def test_closed_stdin_that_a_command_reads_is_one_line_and_exit_2(shell: Shell) -> None:
    shell.run("token", "key", "signing")
    code, out, error = run_in_bash(shell, "passwd users bob <&-")
    assert (code, out) == (2, [])
    assert error == ["majordomus passwd: the password is read from stdin, and stdin is closed"]
    code, out, error = run_in_bash(shell, "token check --key signing.jwk <&-")
    assert (code, out) == (2, [])
    assert error == ["majordomus token: the token is read from stdin, and stdin is closed"]
    assert not (shell.folder / "users").exists()


@pytest.mark.parametrize("command", ["doctor", "doctor --json", "services", "call mmi.broker"])
def test_what_is_printed_to_a_closed_stdout_ends_the_command_in_silence(
    command: str, shell: Shell
) -> None:
    broker = shell.broker()
    shell.environment["MAJORDOMUS_BROKER"] = broker.url
    worker = "from majordomus import Worker\nworker = Worker()\n"
    shell.write("closed.py", worker + "worker.add('echo', lambda request: request.body)\n")
    shell.start("worker", "closed:worker").out.until("serving")
    assert run_in_bash(shell, f"{command} >&-") == (1, [], [])


def test_server_with_closed_streams_serves_and_gives_no_socket_their_numbers(shell: Shell) -> None:
    url = f"ipc://{shell.folder}/closed"
    command = f"exec {sys.executable} -m majordomus.cli broker --bind {url} <&- >&- 2>&-"
    running = shell.adopt(["bash", "-c", command])
    until = time.monotonic() + LIMIT
    while not (shell.folder / "closed").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    assert shell.run("call", "mmi.broker", "--broker", url).code == 0
    for number in (0, 1, 2):
        assert Path(f"/proc/{running.process.pid}/fd/{number}").readlink() == Path(os.devnull)
    assert running.stop() == 0
