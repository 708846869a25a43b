"""`majordomus broker --app`: hooks of a program, taken anew while requests go on."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from majordomus import Client, Worker
from majordomus.cli.config import BrokerConfig
from majordomus.cli.run.app import fresh_modules, make_broker
from majordomus.core.broker.settings import BrokerSettings
from majordomus.errors import ConfigurationError
from majordomus.net.broker.broker import Broker
from tests.cli.shell import LIMIT, Running, Shell

BIND = ("--bind", "tcp://127.0.0.1:0")
APP = """
from majordomus import Broker, Reply
import words

class Mine(Broker):
    def on_request(self, request):
        return Reply(words.ANSWER) if request.service == "ask" else None
"""

HOOKS = """
from majordomus import Broker

class Wrong(Broker):
    on_request = 5

class Late(Broker):
    async def on_part(self, part): ...
"""


def write(shell: Shell, name: str, text: str) -> None:
    """Replace a file at once: who looks meanwhile sees the old one or the new one."""
    made = shell.write(f"{name}.new", text)
    made.replace(shell.folder / name)


def start(shell: Shell, *flags: str) -> Running:
    write(shell, "words.py", "ANSWER = 'one'\n")
    write(shell, "app.py", APP)
    broker = shell.start("broker", "--verbose", "--app", "app:Mine", *BIND, *flags)
    broker.url = broker.out.next().removeprefix("listening on ")
    return broker


def ask(client: Client) -> str:
    return client.call("ask").text


def eventually_answers(client: Client, text: str) -> None:
    until = time.monotonic() + LIMIT
    while ask(client) != text:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_hooks_of_the_app_decide(shell: Shell) -> None:
    broker = start(shell)
    with Client(broker.url, timeout=LIMIT) as client:
        assert ask(client) == "one"
    assert broker.stop() == 0


def test_changed_file_is_taken_anew_and_a_broken_one_changes_nothing(shell: Shell) -> None:
    broker = start(shell, "--reload")
    with Client(broker.url, timeout=LIMIT) as client:
        assert ask(client) == "one"
        write(shell, "words.py", "ANSWER = 'two'\n")
        eventually_answers(client, "two")
        write(shell, "words.py", "ANSWER = \n")
        broker.err.until("not reloaded, nothing changed: app cannot be imported: SyntaxError")
        assert ask(client) == "two"
        write(shell, "words.py", "raise SystemExit('bye')\n")
        broker.err.until("SystemExit: bye")
        write(shell, "words.py", "ANSWER = 'three'\n")
        eventually_answers(client, "three")
    assert broker.stop() == 0


def test_sighup_takes_settings_and_hooks_anew_without_losing_anything(shell: Shell) -> None:
    shell.write("b.toml", "[broker]\nmax_message = 1000\ndefault_ttl = 50\n")
    broker = start(shell, "--config", "b.toml")
    begun, release = threading.Event(), threading.Event()
    worker = Worker(broker.url)

    @worker.service("wait")
    def wait(request: object) -> str:
        begun.set()
        release.wait(LIMIT)
        return "still here"

    with worker, Client(broker.url, timeout=LIMIT) as client:
        open_request = client.submit("wait")
        assert begun.wait(LIMIT)
        write(shell, "words.py", "ANSWER = 'two'\n")
        write(shell, "b.toml", "[broker]\nmax_message = 2000\nmax_open = 1\nbind = 'tcp://*:1'\n")
        broker.send(signal.SIGHUP)
        broker.err.until("max_message cannot change while the broker runs")
        broker.err.until("reloaded: settings and hooks")
        with Client(broker.url, timeout=LIMIT) as other:
            assert ask(other) == "two"
        with pytest.raises(Exception, match="429 1 conversations are open already"):
            client.call("ask", timeout=0.5)
        write(shell, "b.toml", "[broker]\nmax_open = 'many'\n")
        broker.send(signal.SIGHUP)
        broker.err.until("not reloaded, nothing changed: b.toml: max_open")
        release.set()
        assert open_request.result(LIMIT).text == "still here"
        assert ask(client) == "two"
    assert broker.stop() == 0
    assert not [line for line in broker.err.rest() if "worker-lost" in line and "left" not in line]


def test_broker_without_an_app_takes_its_settings_anew(shell: Shell) -> None:
    shell.write("b.toml", "[broker]\n")
    broker = shell.broker("--verbose", "--config", "b.toml")
    write(shell, "b.toml", "[broker]\nmax_message = 5\nmax_frames = 1\n")
    broker.send(signal.SIGHUP)
    broker.err.until("max_frames, max_message cannot change while the broker runs")
    assert broker.stop() == 0


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("app", "'app': expected MODULE:NAME, as in app:MyBroker"),
        ("absent:Mine", "no module 'absent'"),
        ("app:Yours", "'app:Yours': app has no Yours"),
        ("app:words", "'app:words' is of type module, not a Broker"),
        ("app:Reply", "'app:Reply' fails: TypeError"),
        ("broken:Mine", "broken cannot be imported: ValueError: no"),
        ("hooks:Wrong", "on_request of Wrong is no function"),
        ("hooks:Late", "on_part cannot be async"),
    ],
)
def test_what_is_no_app_is_wrong_usage(shell: Shell, target: str, complaint: str) -> None:
    shell.write("words.py", "ANSWER = ''\n")
    shell.write("app.py", APP)
    shell.write("broken.py", "raise ValueError('no')\n")
    shell.write("hooks.py", HOOKS)
    done = shell.run("broker", "--app", target, *BIND)
    assert (done.code, done.out) == (2, b"")
    assert done.err.startswith(f"majordomus broker: {complaint}")
    assert done.err.count("\n") == 1


def test_reload_without_an_app_is_wrong_usage(shell: Shell) -> None:
    done = shell.run("broker", "--reload", *BIND)
    assert (done.code, done.out) == (2, b"")
    assert done.err.startswith("majordomus broker: --reload needs --app")


class TestTargets:
    """What MODULE:NAME may be."""

    CONFIG = BrokerConfig(["tcp://127.0.0.1:*"], BrokerSettings(max_open=3), ())

    @pytest.fixture(autouse=True)
    def here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.delitem(sys.modules, "several", raising=False)
        monkeypatch.syspath_prepend(str(tmp_path))
        Path("several.py").write_text(
            "from majordomus import Broker, BrokerSettings\n"
            "class Mine(Broker): ...\n"
            "def made(): return Mine(BrokerSettings(max_open=7))\n"
            "def make(settings, bind): return Mine(settings, bind=bind, middleware=[object()])\n"
            "ready = made()\n"
            "def wrong(): return 1\n"
        )

    def make(self, name: str, *given: str) -> Broker:
        with fresh_modules(Path.cwd()):
            return make_broker(f"several:{name}", self.CONFIG._replace(given=given))

    @pytest.mark.parametrize(
        ("name", "most"), [("Mine", 3), ("make", 3), ("made", 7), ("ready", 7)]
    )
    def test_class_function_and_broker_are_taken(self, name: str, most: int) -> None:
        broker = self.make(name)
        assert type(broker).__name__ == "Mine"
        assert broker.settings.max_open == most

    @pytest.mark.parametrize("name", ["made", "ready"])
    def test_broker_that_makes_its_own_settings_takes_no_others(self, name: str) -> None:
        with pytest.raises(
            ConfigurationError, match="makes its own settings, so bind, name cannot"
        ):
            self.make(name, "bind", "name")

    def test_what_makes_something_else_is_an_error(self) -> None:
        with pytest.raises(ConfigurationError, match="returned an object of type int"):
            self.make("wrong")

    def test_modules_are_fresh_inside_and_old_again_after_an_error(self) -> None:
        import several  # type: ignore[import-not-found]  # made above

        Path("several.py").write_text("raise OSError\n")
        os.utime("several.py", (0, 0))
        with pytest.raises(ConfigurationError, match="several cannot be imported: OSError"):
            self.make("Mine")
        import several as again

        assert again is several
