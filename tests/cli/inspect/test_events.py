"""`majordomus subscribe` and `publish`, each a process of its own."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from majordomus.net.broker.broker import Broker
from tests.cli.shell import Shell


@pytest.fixture
def url() -> Iterator[str]:
    with Broker(bind="tcp://127.0.0.1:*") as broker:
        yield broker.endpoints[0]


def test_what_one_publishes_the_other_prints(url: str, shell: Shell) -> None:
    plain = shell.start("subscribe", "prices.*", "--broker", url)
    as_json = shell.start("subscribe", ">", "--count", "2", "--json", "--broker", url)
    assert plain.err.next() == "subscribed to prices.*"
    assert as_json.err.next() == "subscribed to >"
    assert shell.run("publish", "prices.eur", "1.08", "--broker", url) == (0, b"", "")
    assert shell.run("publish", "news", "-", "--broker", url, stdin=b"x y") == (0, b"", "")
    assert plain.out.next() == "prices.eur 1.08"
    heard = [json.loads(as_json.out.next()) for _ in range(2)]
    assert [one["topic"] for one in heard] == ["prices.eur", "news"]
    assert plain.stop(signal.SIGINT) == 130
    assert plain.err.rest() == ["subscribed to prices.*"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("publish", "a.*", "x"), "one topic"),
        (("subscribe", "a.>.b"), "last token"),
        (("subscribe", ""), "needs a name"),
    ],
)
def test_name_that_is_none_is_wrong_usage(
    url: str, shell: Shell, arguments: tuple[str, ...], text: str
) -> None:
    code, out, complaint = shell.run(*arguments, "--broker", url)
    assert (code, out) == (2, b"")
    assert text in complaint
    assert complaint.count("\n") == 1


def test_publishing_without_a_broker_fails_in_time(shell: Shell) -> None:
    done = shell.run("publish", "a", "x", "--timeout", "0.3", "--broker", "tcp://127.0.0.1:1")
    assert done[0] == 1
    assert "no broker was reachable" in done[2]
