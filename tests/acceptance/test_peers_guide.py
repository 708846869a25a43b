"""Peers that send what the Majordomo programs of the ZeroMQ guide send (docs/peers.md)."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from majordomus import Broker, BrokerSettings
from tests.acceptance.conftest import wait_for_service
from tests.peers.guide import CLIENTS, WORKERS, CppWorker, MdClient, MdClient2, PhpWorker, Titanic
from tests.peers.loop import Worker, echo, serve

PAGE = Path(__file__).parents[2] / "docs" / "peers.md"
BODIES = [[b"Hello world"], [b""], [b"a", b"", b"b\0c"], [b"0"]]
MANY = 2000


@contextmanager
def serving(make: Callable[[], list[Worker]]) -> Iterator[None]:
    """Workers in a thread of their own."""
    stop = threading.Event()
    thread = threading.Thread(target=lambda: serve(make(), lambda: not stop.is_set()))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)


@pytest.fixture(scope="module")
def guide() -> Iterator[str]:
    """A broker with a worker of each kind, at services like `echo-php`."""
    with Broker(BrokerSettings(), bind="tcp://127.0.0.1:0") as broker:
        url = broker.endpoints[0]

        def make() -> list[Worker]:
            return [made(url, service(name), echo) for name, made in WORKERS.items()]

        with serving(make):
            for name in WORKERS:
                wait_for_service(url, service(name))
            yield url


def service(worker: str) -> bytes:
    return b"echo-" + worker.split()[0].lower().encode()


@pytest.mark.parametrize("worker", WORKERS)
@pytest.mark.parametrize("client", CLIENTS)
def test_guides_client_is_answered_by_the_guides_worker(
    guide: str, client: str, worker: str
) -> None:
    with CLIENTS[client](guide) as peer:
        for body in BODIES:
            assert peer.call(service(worker), body).final == body


@pytest.mark.parametrize("worker", WORKERS)
def test_guides_client_that_sends_everything_first_gets_every_reply(
    guide: str, worker: str
) -> None:
    bodies = [[b"Hello %d" % n] for n in range(MANY)]
    with MdClient2(guide) as peer:
        assert peer.call_many(service(worker), bodies) == bodies


@pytest.mark.parametrize("worker", [CppWorker, PhpWorker])
def test_body_that_begins_with_an_empty_frame_is_whole_unless_the_worker_writes_no_delimiter(
    worker: type, guide: str
) -> None:
    with MdClient(guide) as peer:
        final = peer.call(b"echo-c++" if worker is CppWorker else b"echo-php", [b"", b"a"]).final
    assert final == ([b"", b"a"] if worker is CppWorker else [b"a"])


def test_page_names_every_program_that_is_tested() -> None:
    named = set(re.findall(r"^\| (\S+) \| `(\w+)` \|", PAGE.read_text("utf-8"), re.MULTILINE))
    assert named == {tuple(name.split()) for name in (*CLIENTS, *WORKERS, *TITANIC)}


TITANIC = {f"{language} titanic" for language in ("C", "C++", "Java", "PHP", "Python", "Ruby")} | {
    f"{language} ticlient" for language in ("C", "C++", "Java", "PHP", "Python", "Ruby")
}


@pytest.mark.parametrize("worker", WORKERS)
def test_guides_titanic_keeps_a_request_until_its_service_comes(worker: str) -> None:
    kind = WORKERS[worker]
    with Broker(BrokerSettings(), bind="tcp://127.0.0.1:0") as broker:
        url = broker.endpoints[0]
        made: list[Titanic] = []

        def titanic() -> list[Worker]:
            made.append(Titanic(url, kind))
            return list(made[0].workers)

        with serving(titanic), MdClient(url) as client:
            for name in (b"titanic.request", b"titanic.reply", b"titanic.close"):
                wait_for_service(url, name)
            status, uuid = client.call(b"titanic.request", [b"echo", b"Hello world"]).final
            assert status == b"200"
            made[0].dispatch()
            assert client.call(b"titanic.reply", [uuid]).final == [b"300"]
            with serving(lambda: [kind(url, b"echo", echo)]):
                wait_for_service(url, b"echo")
                made[0].dispatch()
            assert client.call(b"titanic.reply", [uuid]).final == [b"200", b"Hello world"]
            assert client.call(b"titanic.close", [uuid]).final == [b"200"]
            assert client.call(b"titanic.reply", [uuid]).final == [b"400"]
        made[0].client.close()
