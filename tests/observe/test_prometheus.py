"""A real Prometheus reads `majordomus metrics` while a broker is under load.

The alert rules and the dashboard of deploy/ use the exporter's names, and every query of the
dashboard has data.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from majordomus.errors import MajordomusError
from majordomus.net.broker.broker import Broker
from majordomus.net.client.client import Client
from majordomus.net.worker.worker import Worker
from majordomus.observe.exporter import METRICS, PREFIX
from tests.cli.shell import LIMIT, Shell, clean_environment
from tests.observe.programs import free_port, get, needs

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "majordomus.rules.yml"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "majordomus.json").read_text("utf-8"))
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
NAMES = {
    PREFIX + name + suffix for name, meaning in METRICS.items() for suffix in SUFFIXES[meaning.kind]
}
USED = re.compile(rf"{PREFIX}\w+")


@pytest.mark.parametrize("text", [RULES.read_text("utf-8"), "\n".join(QUERIES)])
def test_names_are_those_of_the_exporter(text: str) -> None:
    used = set(USED.findall(text))
    assert len(used) > 10
    assert used <= NAMES


def test_every_alert_has_its_section_in_the_documentation() -> None:
    page = (DEPLOY.parent / "docs" / "observe.md").read_text("utf-8")
    alerts = re.findall(r"alert: (\w+)", RULES.read_text("utf-8"))
    assert [name for name in alerts if f"### {name}\n" not in page] == []
    assert re.findall(r"^### (Majordomus\w+)$", page, re.MULTILINE) == alerts


def test_promtool_accepts_the_alert_rules() -> None:
    done = subprocess.run(
        [needs("promtool"), "check", "rules", str(RULES)], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Load:
    """A worker and a client that make a broker count everything that the dashboard shows."""

    def __init__(self, url: str) -> None:
        self._url, self._end = url, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        worker = Worker(self._url)
        worker.add("echo", lambda request: request.frames)
        worker.add("fails", self._fail)
        with worker, Client(self._url, timeout=5.0) as client:
            worker.wait_ready()
            while not self._end.wait(0.1):
                for _ in range(10):
                    client.call("echo", b"x")
                for service in ("fails", "unserved"):
                    try:
                        client.call(service, fail_fast=True)
                    except MajordomusError:
                        continue
                self._send_rubbish()

    @staticmethod
    def _fail(_request: object) -> None:
        raise ValueError

    def _send_rubbish(self) -> None:
        host, port = self._url.removeprefix("tcp://").split(":")
        with socket.create_connection((host, int(port))) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
            dealer.linger = 100
            dealer.connect(self._url)
            dealer.send_multipart([b"rubbish"])


class Prometheus:
    """A Prometheus that reads one exporter each second."""

    def __init__(self, folder: Path, target: str) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        config = folder / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
            f"rule_files: ['{RULES}']\n"
            "scrape_configs:\n"
            "  - job_name: majordomus\n"
            f"    static_configs: [{{targets: ['{target}']}}]\n"
        )
        command = [
            needs("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
        ]
        with (folder / "prometheus.log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def get(self, path: str, **arguments: str) -> Any:
        query = urllib.parse.urlencode(arguments)
        return json.loads(get(f"{self.url}/api/v1/{path}?{query}")[1])["data"]

    def values(self, expression: str) -> list[float]:
        """The values of an instant query that are numbers."""
        found = self.get("query", query=expression)["result"]
        values = [float(one["value"][1]) for one in found]
        return [value for value in values if value == value]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    needs("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    shell = Shell(folder, clean_environment())
    with Broker(bind="tcp://127.0.0.1:*") as broker, Load(broker.endpoints[0]):
        exporter = shell.start("metrics", "--broker", broker.endpoints[0], "--bind", "127.0.0.1:0")
        target = exporter.out.next().removeprefix("listening on http://")
        started = Prometheus(folder, target)
        try:
            yield started
        finally:
            started.process.terminate()
            started.process.wait(LIMIT)
            shell.end()
    shutil.rmtree(folder)


def filled_in(query: str) -> str:
    """A query of the dashboard as Grafana sends it."""
    return query.replace("$broker", ".*").replace("$__rate_interval", "10s")


def test_every_query_of_the_dashboard_has_data_under_load(prometheus: Prometheus) -> None:
    waiting = set(map(filled_in, QUERIES))
    end = time.monotonic() + LIMIT
    while waiting and time.monotonic() < end:
        time.sleep(0.5)
        try:
            waiting = {query for query in waiting if not prometheus.values(query)}
        except OSError:  # it is not listening yet
            continue
    assert waiting == set()


def test_prometheus_counts_what_the_broker_counts(prometheus: Prometheus) -> None:
    outcome = 'majordomus_service_requests_total{service="%s",outcome="%s"}'
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        values = [
            prometheus.values(outcome % pair)
            for pair in (("echo", "answered"), ("fails", "failed"))
        ]
        if all(values):
            break
        time.sleep(0.5)
    (answered,), (failed,) = values
    assert answered > failed > 0


def test_prometheus_evaluates_every_alert_rule(prometheus: Prometheus) -> None:
    end = time.monotonic() + LIMIT
    states: dict[str, str] = {}
    while time.monotonic() < end and states.get("MajordomusFailures") in (None, "inactive"):
        time.sleep(0.5)  # a rate needs two scrapes
        rules = prometheus.get("rules")["groups"][0]["rules"]
        states = {rule["name"]: rule["state"] for rule in rules if rule["health"] == "ok"}
    assert states.keys() == {rule["name"] for rule in rules}
    assert states["MajordomusDown"] == "inactive"
    assert states["MajordomusFailures"] in ("pending", "firing")
