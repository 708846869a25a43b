"""The programs in examples/ run as they are, but for the port."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

from tests.cli.shell import LIMIT, SOURCE, Running, Shell
from tests.cli.test_readme import free_port

EXAMPLES = SOURCE.parent / "examples"


def copy(shell: Shell, example: str, port: int) -> None:
    """The files of an example into the test's folder, on a free port."""
    for path in (EXAMPLES / example).glob("*.py"):
        text = path.read_text("utf-8")
        assert "5555" in text
        shell.write(path.name, text.replace("5555", str(port)))


def start(shell: Shell, program: str) -> Running:
    """A program in the background, until the test ends."""
    return shell.adopt([sys.executable, program])


def test_hello_has_three_programs_that_find_each_other(shell: Shell) -> None:
    copy(shell, "hello", free_port())
    assert sorted(path.name for path in Path(shell.folder).iterdir()) == [
        "broker.py",
        "client.py",
        "worker.py",
    ]
    broker, worker = start(shell, "broker.py"), start(shell, "worker.py")
    done = subprocess.run(
        [sys.executable, "client.py"],
        cwd=shell.folder,
        env=shell.environment,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    printed = b"hello, world\nslept slept slept slept slept\n1\n2\n3\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, printed, b"")
    assert (worker.stop(), broker.stop()) == (0, 0)


def test_hash_pool_works_in_processes_and_shows_how_far_it_is(shell: Shell) -> None:
    copy(shell, "hash-pool", free_port())
    broker, worker = start(shell, "broker.py"), start(shell, "worker.py")
    done = subprocess.run(
        [sys.executable, "client.py", "one", "two", "three"],
        cwd=shell.folder,
        env=shell.environment,
        capture_output=True,
        timeout=2 * LIMIT,
        check=False,
    )
    lines = [f"{stretched(word)}  {word}" for word in ("one", "two", "three")]
    assert (done.returncode, done.stdout.decode().splitlines()) == (0, lines)
    bars = [line.split() for line in done.stderr.decode().splitlines()]
    assert [(bar[0], bar[-2]) for bar in bars] == [
        ("one", "100%"),
        ("two", "100%"),
        ("three", "100%"),
    ]
    assert (worker.stop(), broker.stop()) == (0, 0)


def run(shell: Shell, *arguments: str) -> tuple[int, str, str]:
    """A program of an example, to its end."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=shell.folder,
        env=shell.environment,
        capture_output=True,
        timeout=2 * LIMIT,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_slow_and_push_acknowledges_at_once_and_pushes_the_result_later(shell: Shell) -> None:
    copy(shell, "slow-and-push", free_port())
    broker, worker = start(shell, "broker.py"), start(shell, "worker.py")
    printed = [
        "accepted: a long report",
        "accepted: memo",
        "printed: memo on 4 pages",
        "printed: a long report on 13 pages",
    ]
    assert run(shell, "client.py") == (0, "\n".join(printed) + "\n", "")
    assert (worker.stop(), broker.stop()) == (0, 0)


def test_prices_are_heard_by_who_subscribed_to_them(shell: Shell) -> None:
    copy(shell, "prices", free_port())
    broker, feed = start(shell, "broker.py"), start(shell, "feed.py")
    code, printed, complaints = run(shell, "watch.py", "prices.eur.*")
    assert (code, complaints) == (0, "")
    *prices, gold = printed.splitlines()
    assert [line.split()[0] for line in prices] in (
        ["prices.eur.usd", "prices.eur.chf"] * 3,
        ["prices.eur.chf", "prices.eur.usd"] * 3,
    )
    usd = [float(line.split()[1]) for line in prices if "usd" in line]
    assert usd == sorted(usd) and len(usd) == 3
    assert float(gold.removeprefix("gold costs ")) >= 2400.0
    assert (feed.stop(), broker.stop()) == (0, 0)


def stretched(word: str) -> str:
    digest = word.encode()
    for _ in range(400_000):
        digest = hashlib.sha256(digest).digest()
    return digest.hex()


def test_auth_hook_redirects_logins_and_drops_what_has_no_token(shell: Shell) -> None:
    copy(shell, "auth-hook", free_port())
    broker, worker = start(shell, "broker.py"), start(shell, "worker.py")
    done = subprocess.run(
        [sys.executable, "client.py"],
        cwd=shell.folder,
        env=shell.environment,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    printed = (
        b"the diary of ada\n403 wrong name or password\n"
        b"diary: silence\ndiary: silence\naccounts.whose: silence\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, printed, b"")
    assert (worker.stop(), broker.stop()) == (0, 0)


def test_chat_brings_what_one_member_says_to_all_others(shell: Shell) -> None:
    copy(shell, "chat", free_port())
    broker, worker = start(shell, "broker.py"), start(shell, "worker.py")
    ann = shell.adopt([sys.executable, "client.py", "kitchen", "ann"], typing=True)
    assert ann.out.next() == "welcome to kitchen, ann"
    bob = shell.adopt([sys.executable, "client.py", "kitchen", "bob"], typing=True)
    assert bob.out.next() == "welcome to kitchen, bob"
    assert ann.out.next() == "bob comes"
    ann.type("hello, bob")
    assert (ann.out.next(), bob.out.next()) == ("ann: hello, bob", "ann: hello, bob")
    bob.type("hello, ann")
    assert (ann.out.next(), bob.out.next()) == ("bob: hello, ann", "bob: hello, ann")
    bob.type(None)
    assert bob.process.wait(LIMIT) == 0
    assert ann.out.next() == "bob goes"
    ann.type(None)
    assert ann.process.wait(LIMIT) == 0
    assert (ann.err.rest(), bob.err.rest()) == ([], [])
    assert (worker.stop(), broker.stop()) == (0, 0)


def test_fan_out_asks_every_shard_and_has_the_whole_answer(shell: Shell) -> None:
    port = free_port()
    copy(shell, "fan-out", port)
    broker = start(shell, "broker.py")
    shards = [shell.adopt([sys.executable, "shard.py", letters]) for letters in ("ab", "c", "d")]
    url = f"tcp://127.0.0.1:{port}"
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        code, out, _ = shell.run("workers", "words", "--json", "--broker", url)
        if code == 0 and len(json.loads(out)) == 3:
            break
    printed = "ape bat cat\n3 asked, 0 failed\n"
    assert run(shell, "client.py", "a") == (0, "ant " + printed, "")
    assert [one.stop() for one in (*shards, broker)] == [0, 0, 0, 0]
