"""`majordomus durable`, `majordomus call --durable` and `majordomus broker --store` as a user runs
them."""

from __future__ import annotations

import json
import signal

import pytest

from majordomus import Client
from tests.cli.shell import Running, Shell


@pytest.fixture
def stored(shell: Shell) -> Running:
    """A broker with a store."""
    broker = shell.broker("--store", "sqlite:store.db")
    shell.environment["MAJORDOMUS_BROKER"] = broker.url
    return broker


def test_request_is_submitted_listed_withdrawn_and_forgotten(shell: Shell, stored: Running) -> None:
    made = shell.run("call", "--durable", "--detach", "mail", "hello")
    assert (made.code, made.err) == (0, "")
    id = made.out.decode().strip()
    assert len(id) == 32
    pending = shell.run("durable", "result", id)
    assert pending.code == 1
    assert pending.err == "majordomus durable: 408 the request has no outcome yet\n"
    [row] = json.loads(shell.run("durable", "list", "--json").out)
    assert (row["service"], row["state"], row["status"], row["id"]) == ("mail", "waiting", 0, "")
    shown = json.loads(shell.run("durable", "show", str(row["number"]), "--json").out)
    assert shown["number"] == row["number"]
    assert shell.run("durable", "withdraw", id).code == 0
    ended = shell.run("durable", "result", id)
    assert (ended.code, ended.err) == (1, "majordomus durable: 499 withdrawn\n")
    assert shell.run("durable", "forget", id).code == 0
    gone = shell.run("durable", "forget", id)
    assert (gone.code, gone.err) == (
        1,
        f"{id}: 410 the outcome of this request is no longer kept\n",
    )
    line = "durable: 0 without an outcome, 0 placed, the oldest 0 s old; 0 rows"
    for _ in range(20):  # the row is deleted with the next batch
        shown = shell.run("top", "--once", "--interval", "0.05").out.decode()
        if line in shown:
            break
    assert line in shown, shown.splitlines()
    assert line in shell.run("explain").out.decode()
    status = json.loads(shell.run("durable", "status", "--json").out)
    assert (status["open"], status["rows"], status["accepts"]) == (0, 0, True)


def test_second_broker_on_the_file_is_refused_with_one_line(shell: Shell, stored: Running) -> None:
    done = shell.run("broker", "--bind", "tcp://127.0.0.1:0", "--store", "sqlite:store.db")
    assert (done.code, done.out) == (2, b"")
    assert done.err.startswith("majordomus broker: --store sqlite:store.db: another process uses")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_file_of_a_broker_that_has_ended_is_verified_copied_and_compacted(
    shell: Shell, stored: Running, number: signal.Signals
) -> None:
    for body in ("one", "two"):
        assert shell.run("call", "--durable", "--detach", "mail", body).code == 0
    assert shell.run("durable", "backup", "store.db", "live.db").code == 0
    stored.stop(number)
    found = json.loads(shell.run("durable", "verify", "store.db", "--json").out)
    assert (found["rows"], found["open"], found["problems"]) == (2, 2, [])
    assert shell.run("durable", "backup", "store.db", "copy.db").code == 0
    assert shell.run("durable", "compact", "store.db").code == 0
    for name in ("store.db", "copy.db", "live.db"):
        assert json.loads(shell.run("durable", "verify", name, "--json").out)["rows"] == 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("durable", "verify", "no.db"), "majordomus durable: no.db does not exist"),
        (("durable", "verify", "."), "is a folder: name a file in it"),
        (("durable", "compact", ""), "is a folder: name a file in it"),
        (("durable", "show", "-1"), "No such option"),
        (("durable", "show", "1.5"), "'1.5' is no id and no number"),
        (("durable", "result", "x" * 5000), "'" + "x" * 64 + "' is no id: an id has 32"),
        (("call", "--durable", "--dialect", "mdp01", "mail"), "--dialect mdp01: call titanic.re"),
        (
            ("call", "--durable", "--key", "order-17", "mail"),
            "no such file. The key of a durable request is --idempotency-key",
        ),
        (("broker", "--store", "sqlite::memory:"), "a store is a file, sqlite:FILE, not"),
        (("titanic", "--store", "sqlite:t.db", "--keep", "nan"), "nan is not a number up to"),
        (("titanic", "--store", "sqlite:t.db", "--attempt", "nan"), "nan is not a number up to"),
        (("durable", "show", "what"), "'what' is no id and no number"),
        (("durable", "result", "77"), "'77' is no id: an id has 32 hexadecimal digits"),
        (("durable", "withdraw", "f" * 32, "zz"), "'zz' is no id: an id has 32"),
        (("call", "--detach", "mail"), "--idempotency-key, --expires and --keep need --durable"),
        (("call", "--keep", "9", "mail"), "--idempotency-key, --expires and --keep need --durable"),
        (("call", "--durable", "--expires", "nan", "mail"), "nan is not a number up to"),
        (("broker", "--store", "nosql:x"), "a store is sqlite:FILE, not 'nosql:x'"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    shell: Shell, arguments: tuple[str, ...], line: str
) -> None:
    done = shell.run(*arguments)
    assert done.code == 2
    assert line in done.err
    assert done.err.count("\n") == 1


def test_show_and_list_say_what_they_do_not_show(shell: Shell, stored: Running) -> None:
    ids = [
        shell.run("call", "--durable", "--detach", "mail", body).out.decode().strip()
        for body in ("one", "two")
    ]
    first = shell.run("durable", "list", "--limit", "1")
    assert (first.code, first.err) == (0, "there are more than 1: --limit N shows more\n")
    assert len(first.out.splitlines()) == 2
    assert shell.run("durable", "list", "--limit", "2").err == ""
    assert shell.run("durable", "show", ids[0].upper()).code == 0
    for unknown in ("7", "0", "9" * 30, "f" * 32):
        done = shell.run("durable", "show", unknown)
        assert (done.code, done.err) == (
            1,
            f"majordomus durable: 404 the broker has no durable request {unknown}\n",
        )


def test_request_expires_as_the_command_says(shell: Shell, stored: Running) -> None:
    done = shell.run("call", "--durable", "--expires", "0.1", "--keep", "60", "mail", "x")
    assert (done.code, done.out) == (1, b"")
    assert "408 the request had no outcome within 0.1 s, after 0 attempts" in done.err
    [row] = json.loads(shell.run("durable", "list", "--json").out)
    assert (row["state"], row["status"]) == ("ended", 408)


def test_result_shows_the_metadata_of_the_outcome_as_call_does(
    shell: Shell, stored: Running
) -> None:
    shell.write(
        "app.py",
        "from majordomus import Reply, Worker\n"
        "worker = Worker()\n"
        "@worker.service('echo')\n"
        "def echo(request):\n"
        "    return Reply([request.body], metadata={'z': 1})\n",
    )
    shell.start("worker", "app:worker")
    id = shell.run("call", "--durable", "--detach", "echo", "x").out.decode().strip()
    found = shell.run("durable", "result", id, "--wait", "--json")
    assert json.loads(found.out)["metadata"] == {"z": 1}


def test_run_of_a_durable_request_is_explained_by_the_id_in_the_list(
    shell: Shell, stored: Running
) -> None:
    done = shell.run("explain", "-1342411143137")
    assert (done.code, done.out) == (1, b"")
    assert "the broker has no request -1342411143137" in done.err
    for wrong in ("--jsn", "-x", "-12x"):
        done = shell.run("explain", wrong)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "No such option" in done.err


def test_broker_without_a_store_says_so(shell: Shell) -> None:
    broker = shell.broker()
    for command in ("status", "list"):
        done = shell.run("durable", command, "--broker", broker.url)
        assert (done.code, done.err.count("\n")) == (1, 1)
        assert "this broker has no store for durable requests" in done.err


def test_verify_of_a_file_whose_structure_is_damaged_is_a_problem_and_no_wrong_use(
    shell: Shell, stored: Running
) -> None:
    with Client(stored.url) as client:
        for _ in range(40):
            client.submit_durable("mail", "x" * 3000)
    assert stored.stop() == 0
    file = shell.folder / "store.db"
    whole = file.read_bytes()
    damages = {
        "header": b"x" * 100 + whole[100:],
        "truncated": whole[: len(whole) // 2],
        "page": whole[:8192] + bytes(4096) + whole[12288:],
    }
    for damage in damages.values():
        file.write_bytes(damage)
        done = shell.run("durable", "verify", "store.db")
        assert (done.code, done.err) == (1, "")
        assert done.out.decode().endswith(": 1 problems\n")
        told = json.loads(shell.run("durable", "verify", "store.db", "--json").out)
        assert len(told["problems"]) == 1
    file.write_bytes(whole)
    assert shell.run("durable", "verify", "store.db").code == 0
