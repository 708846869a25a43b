"""`majordomus proxy`: one that runs, and one that steers it."""

from __future__ import annotations

import json

import pytest
import zmq

from tests.cli.shell import Running, Shell

LOCAL = "tcp://127.0.0.1:0"
RUN = ("proxy", "--pattern", "pull-push", "--frontend", LOCAL, "--backend", LOCAL)


def started(shell: Shell) -> tuple[Running, dict[str, str]]:
    running = shell.start(*RUN, "--control", LOCAL)
    lines = [running.out.next().split() for _ in range(3)]
    return running, {line[0]: line[1] for line in lines}


def test_proxy_runs_is_steered_and_ends_by_command(shell: Shell) -> None:
    running, at = started(shell)
    with (
        zmq.Context() as context,
        context.socket(zmq.PUSH) as push,
        context.socket(zmq.PULL) as pull,
    ):
        pull.setsockopt(zmq.RCVTIMEO, 20_000)
        push.connect(at["frontend"])
        pull.connect(at["backend"])
        push.send(b"hello")
        assert pull.recv() == b"hello"
        assert shell.run("proxy", "--pause", at["control"]) == (0, b"", "")
        push.send(b"waits")
        assert not pull.poll(100)
        told = json.loads(shell.run("proxy", "--statistics", at["control"], "--json").out)
        assert told["paused"] is True
        assert told["frontend"] == {
            "received": 1,
            "received_bytes": 5,
            "sent": 0,
            "sent_bytes": 0,
        }
        shown = shell.run("proxy", "--statistics", at["control"]).out.decode().splitlines()
        assert shown[2].split() == ["backend", "0", "0", "1", "5"]
        assert shown[3] == "the proxy is paused"
        assert shell.run("proxy", "--resume", at["control"]) == (0, b"", "")
        assert pull.recv() == b"waits"
    assert shell.run("proxy", "--terminate", at["control"]) == (0, b"", "")
    assert running.process.wait(20) == 0


def test_proxy_ends_with_a_signal(shell: Shell) -> None:
    running, _ = started(shell)
    assert running.stop() == 0
    assert running.err.rest() == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "a proxy needs --pattern, --frontend and --backend"),
        (("--pause", LOCAL, "--resume", LOCAL), "only one of these at a time: --pause, --resume"),
        (("--pause", "tcp://h:1", "--control", LOCAL), "--pause controls a running proxy"),
        (("--pause", "here"), "is no endpoint"),
        ((*RUN[1:], "--control", "x"), "'x' is no endpoint"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_two(
    shell: Shell, arguments: tuple[str, ...], says: str
) -> None:
    done = shell.run("proxy", *arguments)
    assert (done.code, done.out) == (2, b"")
    assert says in done.err
    assert len(done.err.splitlines()) == 1


def test_nobody_at_the_control_endpoint_is_a_failure(shell: Shell) -> None:
    done = shell.run("proxy", "--pause", "tcp://127.0.0.1:1", "--timeout", "0.2")
    line = "majordomus proxy: 408 no proxy answers at tcp://127.0.0.1:1 within 0.2 s\n"
    assert done == (1, b"", line)
