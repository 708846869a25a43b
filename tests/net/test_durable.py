"""Durable requests through real sockets and a real file: clients, handlers, restarts, faults."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from majordomus import (
    Action,
    AsyncClient,
    Broker,
    BrokerLost,
    BrokerSettings,
    Cancelled,
    Client,
    ConfigurationError,
    Conflict,
    DeadlineExceeded,
    DoNotRetry,
    Expired,
    HandlerFailed,
    HookRequest,
    NotFound,
    NotSupported,
    RemoteProtocolError,
    Reply,
    Worker,
)
from majordomus.core.broker.durable.records import Answer, Append, Complete
from majordomus.durable.runner import StoreThread
from majordomus.durable.store import Numbered, Store, StoreError
from majordomus.net.worker.request import Request
from tests.net.conftest import eventually

WRONG_LIMITS = (0, -1, 1.5, True, "x", 10**20)

Settings = Callable[..., BrokerSettings]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    def make(**fields: object) -> BrokerSettings:
        named = {"retry_delay": 0.05, "drain_timeout": 2.0, **fields}
        return BrokerSettings(store=f"sqlite:{tmp_path / 'store.db'}", **named)  # type: ignore[arg-type]

    return make


@pytest.fixture
def broker(settings: Settings) -> Iterator[Broker]:
    with Broker(settings(), bind="tcp://127.0.0.1:0") as running:
        yield running


@contextmanager
def serving(url: str, register: Callable[[Worker], None]) -> Iterator[Worker]:
    worker = Worker(url)
    register(worker)
    worker.start()
    try:
        worker.wait_ready(10.0)
        yield worker
    finally:
        worker.stop()


def mail(worker: Worker) -> None:
    """Serve `mail`, which fails as its body says, and `job`, which is durable."""
    runs: dict[str, int] = {}

    @worker.service("mail")
    def send(request: Request) -> str:
        runs[request.text] = count = runs.get(request.text, 0) + 1
        if request.text == "twice" and count == 1:
            raise OSError("no route")
        if request.text == "never":
            raise DoNotRetry("no such address")
        return f"{request.text} {count} {request.attempt} {request.key}"

    @worker.service("job", durable=True, max_attempts=2)
    def job(request: Request) -> str:
        raise RuntimeError(f"attempt {request.attempt}")


def test_call_that_is_durable_returns_the_outcome(broker: Broker) -> None:
    url = broker.endpoints[0]
    with serving(url, mail), Client(url) as client:
        assert client.call("mail", "hi", durable=True).text == "hi 1 1 None"
        assert client.call("mail", "twice", durable=True).text == "twice 2 2 None"
        with pytest.raises(DoNotRetry, match="no such address"):
            client.call("mail", "never", durable=True)


def test_key_makes_two_calls_one_request(broker: Broker) -> None:
    url = broker.endpoints[0]
    with serving(url, mail), Client(url) as client:
        first = client.call("mail", "hi", durable=True, key="order-17").text
        assert client.call("mail", "hi", durable=True, key="order-17").text == first
        assert client.submit_durable("mail", "hi", key=b"order-17")
        assert first == "hi 1 1 order-17"
        with pytest.raises(Conflict):
            client.call("mail", "ho", durable=True, key="order-17")


def test_submitted_request_outlives_the_broker(settings: Settings) -> None:
    with Broker(settings(), bind="tcp://127.0.0.1:0") as broker, Client(broker.endpoints) as client:
        id = client.submit_durable("mail", "hi")
        with pytest.raises(DeadlineExceeded):
            client.result(id, timeout=0)
        with pytest.raises(DeadlineExceeded):
            client.result(id, timeout=0.05)
    with Broker(settings(), bind="tcp://127.0.0.1:0") as broker, Client(broker.endpoints) as client:
        worker = Worker(broker.endpoints)
        mail(worker)
        worker.start()
        assert client.result(id).text == "hi 1 1 None"
        client.forget(id)
        with pytest.raises(Expired):
            client.result(id)
        worker.stop()


def test_request_can_be_withdrawn_until_it_has_an_outcome(broker: Broker) -> None:
    url = broker.endpoints[0]
    with Client(url) as client:
        id = client.submit_durable("mail", "hi")
        with pytest.raises(Conflict):
            client.forget(id)
        client.withdraw(id)
        with pytest.raises(Cancelled):
            client.result(id)
        with pytest.raises(Conflict):
            client.withdraw(id)
        with pytest.raises(NotFound):
            client.result("00" * 16)


def test_result_has_the_metadata_of_the_outcome(broker: Broker) -> None:
    def register(worker: Worker) -> None:
        worker.add("echo", lambda request: Reply([request.body], metadata={"z": 1}))

    url = broker.endpoints[0]
    with serving(url, register), Client(url) as client:
        id = client.submit_durable("echo", b"x", key="k")
        found = client.result(id)
        called = client.call("echo", b"x", durable=True, key="k")
    assert (found.body, found.metadata) == (called.body, called.metadata) == (b"x", {"z": 1})


def test_answer_of_a_hook_is_no_id(settings: Settings) -> None:
    class Answering(Broker):
        def on_request(self, request: HookRequest) -> Action | None:
            return Reply([b"from the hook"]) if request.service == "echo" else None

    with Answering(settings(), bind="tcp://127.0.0.1:0") as broker:
        refused = pytest.raises(RemoteProtocolError, match="nothing is stored")
        with Client(broker.endpoints[0]) as client, refused:
            client.submit_durable("echo", b"x")


def test_asyncio_client_has_the_same_methods(broker: Broker) -> None:
    url = broker.endpoints[0]

    async def run() -> None:
        async with AsyncClient(url) as client:
            reply = await client.call("mail", "hi", durable=True, key="k")
            assert reply.text == "hi 1 1 k"
            id = await client.submit_durable("mail", "hi", key="k")
            assert (await client.result(id)).text == reply.text
            await client.forget(id)
            with pytest.raises(Expired):
                await client.result(id, timeout=0)
            other = await client.submit_durable("nothing", "")
            await client.withdraw(other)
            with pytest.raises(Cancelled):
                await client.result(other)

    with serving(url, mail):
        asyncio.run(run())


def test_handler_that_is_durable_is_tried_as_often_as_it_says(broker: Broker) -> None:
    url = broker.endpoints[0]
    failed = pytest.raises(HandlerFailed, match="attempt 2")
    with serving(url, mail), Client(url) as client, failed:
        client.call("job", "x")


def test_request_that_expires_is_408(broker: Broker) -> None:
    with Client(broker.endpoints) as client:
        id = client.submit_durable("nothing", "", expires=0.1)
        with pytest.raises(DeadlineExceeded, match=r"no outcome within 0\.1 s"):
            client.result(id, timeout=5.0)


def test_durable_call_whose_request_expires_is_408(broker: Broker) -> None:
    expired = r"no outcome within 0\.1 s"

    async def call() -> None:
        async with AsyncClient(broker.endpoints) as client:
            with pytest.raises(DeadlineExceeded, match=expired):
                await client.call("nothing", "", timeout=5.0, durable=True, expires=0.1)

    asyncio.run(call())
    with Client(broker.endpoints) as client, pytest.raises(DeadlineExceeded, match=expired):
        client.call("nothing", "", timeout=5.0, durable=True, expires=0.1)


@pytest.mark.parametrize("wrong", [{"once": True}, {"to": b"w"}, {"hedge_after": 1.0}])
def test_option_that_does_not_go_with_durable_is_an_error(
    broker: Broker, wrong: dict[str, object]
) -> None:
    with Client(broker.endpoints) as client, pytest.raises(ConfigurationError, match="durable"):
        client.call("mail", "", durable=True, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "dialect"),
    [
        ({"max_attempts": 3}, "mdp03"),
        *(({"durable": True, "max_attempts": wrong}, "mdp03") for wrong in WRONG_LIMITS),
        ({"durable": True}, "mdp02"),
    ],
)
def test_service_cannot_be_declared_so(arguments: dict[str, object], dialect: str) -> None:
    with pytest.raises(ConfigurationError):
        Worker(dialect=dialect).add("mail", print, **arguments)  # type: ignore[arg-type]


def test_broker_without_a_store_refuses_durable_services_and_requests() -> None:
    with Broker(bind="tcp://127.0.0.1:0") as broker:
        url = broker.endpoints[0]
        with Client(url) as client, pytest.raises(NotSupported, match="no store"):
            client.call("mail", "", durable=True)
        worker = Worker(url)
        mail(worker)
        worker.start()
        with pytest.raises(NotSupported, match="no store"):
            worker.wait_ready(10.0)
        worker.stop()


# ── the broker and its store ──────────────────────────────────────────────────────────────────────


def test_second_broker_on_the_store_is_refused(settings: Settings) -> None:
    refused = pytest.raises(ConfigurationError, match="another process uses this store")
    with Broker(settings(), bind="tcp://127.0.0.1:0"), refused:
        Broker(settings(), bind="tcp://127.0.0.1:0").open()
    with Broker(settings(), bind="tcp://127.0.0.1:0"):
        pass


@pytest.mark.parametrize("named", ["store.db", "sqlite:", "postgres://x", "sqlite:/no/such/file"])
def test_store_that_cannot_be_opened_is_one_error(named: str) -> None:
    with pytest.raises(ConfigurationError):
        Broker(BrokerSettings(store=named), bind="tcp://127.0.0.1:0").open()


def test_broker_that_stops_writes_the_outcome_of_what_runs(settings: Settings) -> None:
    release = threading.Event()

    def slow(worker: Worker) -> None:
        @worker.service("slow")
        def serve(request: Request) -> str:
            release.wait(5.0)
            return "done"

    broker = Broker(settings(drain_timeout=5.0), bind="tcp://127.0.0.1:0")
    broker.start()
    with serving(broker.endpoints[0], slow), Client(broker.endpoints) as client:
        id = client.submit_durable("slow", "")
        eventually(lambda: (found := broker.find_worker("slow")) and found.held)
        stopping = threading.Thread(target=broker.stop)
        stopping.start()
        time.sleep(0.1)
        release.set()
        stopping.join()
    with Broker(settings(), bind="tcp://127.0.0.1:0") as again, Client(again.endpoints) as client:
        assert client.result(id, timeout=5.0).text == "done"


@pytest.mark.parametrize("phase", ["storing", "ending", "waiting"])
def test_broker_that_stops_in_any_phase_loses_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    from majordomus.durable import runner

    quick = runner.write
    busy = threading.Event()
    told: list[str] = []

    def slow(store: Store, batch: list[Numbered]) -> list[tuple[int, Answer]]:
        kind = Complete if phase == "ending" else Append
        if any(isinstance(one, kind) for _, one in batch):
            busy.set()
            time.sleep(0.3)
        return quick(store, batch)

    broker = Broker(settings(drain_timeout=5.0), bind="tcp://127.0.0.1:0")
    broker.start()
    client = Client(broker.endpoints)
    id = ""
    if phase != "storing":
        id = client.submit_durable("mail", "hi", key="k")
    monkeypatch.setattr(runner, "write", slow)
    asked: Callable[[], object] = lambda: told.append(client.submit_durable("mail", "x", key="k2"))  # noqa: E731
    if phase == "ending":
        worker = Worker(broker.endpoints)
        mail(worker)
        worker.start()
        asked = lambda: told.append(client.call("mail", "hi", durable=True, key="k").text)  # noqa: E731
    thread = threading.Thread(target=asked)
    if phase == "waiting":
        busy.set()
    else:
        thread.start()
    assert busy.wait(5.0)
    broker.stop()
    if phase != "waiting":
        thread.join(10.0)
        assert len(told) == 1
    if phase == "ending":
        worker.stop()
    client.close()
    monkeypatch.undo()
    with Broker(settings(), bind="tcp://127.0.0.1:0") as again, Client(again.endpoints) as client:
        if phase == "ending":
            assert client.result(id, timeout=0).text == told[0]
        else:
            with pytest.raises(DeadlineExceeded):
                client.result(id or told[0], timeout=0)


def test_store_that_fails_ends_the_broker_without_an_answer(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise StoreError("disk I/O error")

    broker = Broker(settings(), bind="tcp://127.0.0.1:0")
    ended: list[BaseException] = []

    def run() -> None:
        try:
            broker.run()
        except StoreError as error:
            ended.append(error)

    broker.open()
    thread = threading.Thread(target=run)
    thread.start()
    with Client(broker.endpoints, timeout=1.0) as client:
        client.submit_durable("mail", "hi")
        monkeypatch.setattr("majordomus.durable.runner.write", fail)
        with caplog.at_level(logging.CRITICAL), pytest.raises((BrokerLost, DeadlineExceeded)):
            client.submit_durable("mail", "lost")
    thread.join(5.0)
    assert [str(one) for one in ended] == ["disk I/O error"]
    assert "the store has failed: disk I/O error" in caplog.text


def test_batch_has_what_gathered_while_the_one_before_was_written() -> None:
    from majordomus.core.broker.durable.records import Append
    from majordomus.durable import batches as module
    from majordomus.durable.memory import MemoryStore
    from tests.durable.samples import row

    class Slow(MemoryStore):
        def __init__(self) -> None:
            super().__init__()
            self.sizes: list[int] = []
            self.free = threading.Event()

        def append(self, rows: list) -> list:  # type: ignore[type-arg]
            self.sizes.append(len(rows))
            self.free.wait(5.0)
            return super().append(rows)

    store = Slow()
    thread = StoreThread(store, lambda: None)
    thread.start()
    thread.submit([(1, Append(row(1)))])
    eventually(lambda: store.sizes)
    for number in range(2, module.ROWS + 12):
        thread.submit([(number, Append(row(number)))])
    store.free.set()
    thread.close()
    assert store.sizes == [1, module.ROWS, 10]
    assert [done[0] for done in thread.done if done[0]] == [1, module.ROWS + 1, module.ROWS + 11]
