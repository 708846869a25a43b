"""OpenTelemetry: spans of client, broker and worker, as a collector gets them by OTLP.

The collector is a few lines of this file. It decodes with the generated code of
opentelemetry-proto, which is not what has encoded the fields by hand.
"""

from __future__ import annotations

import asyncio
import http.server
import logging
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.samples import Exemplar

from majordomus.contrib.otel import (
    BrokerSpans,
    OtlpExporter,
    OtlpLogs,
    TracedAsyncClient,
    TracedAsyncWorker,
    TracedClient,
    TracedWorker,
    logs,
)
from majordomus.contrib.otel.context import parent_of, set_failure, traceparent_of
from majordomus.contrib.otel.metrics import encoded
from majordomus.errors import BadRequest, ConfigurationError, HandlerFailed
from majordomus.net.broker.broker import Broker
from majordomus.net.client.client import Client
from majordomus.net.events import Event
from majordomus.net.worker.deferred_reply import DeferredReply
from majordomus.net.worker.request import Request
from majordomus.net.worker.worker import Worker
from majordomus.observe.ended import EndedRequest
from tests.cli.conftest import shell
from tests.cli.shell import LIMIT, Running, Shell
from tests.contrib import in_process

__all__ = ["shell"]

SHOP = """
from majordomus import Worker

worker = Worker()


@worker.service("echo")
async def echo(request):
    return request.frames
"""


class Span(NamedTuple):
    """One span, as the collector has decoded it."""

    kind: str
    name: str
    trace: str
    id: str
    parent: str
    status: int
    attributes: dict[str, Any]
    events: list[str]
    began: int
    ended: int


class Collector:
    """An OTLP receiver over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.logs: list[Any] = []
        self.metrics: dict[str, Any] = {}
        self.resource: dict[str, str] = {}
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.take(self.path, self.headers["Content-Type"], body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def take(self, path: str, kind: str, body: bytes) -> None:
        assert kind == "application/x-protobuf"
        if path == "/v1/logs":
            for logs in ExportLogsServiceRequest.FromString(body).resource_logs:
                self.logs += [one for scope in logs.scope_logs for one in scope.log_records]
            return
        if path == "/v1/metrics":
            for metrics in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                (scope,) = metrics.scope_metrics
                attributes = metrics.resource.attributes
                self.resource = {one.key: one.value.string_value for one in attributes}
                self.metrics = {metric.name: metric for metric in scope.metrics}
            return
        assert path == "/v1/traces"
        message = ExportTraceServiceRequest.FromString(body)
        for resource in message.resource_spans:
            for scope in resource.scope_spans:
                assert scope.scope.name == "majordomus"
                self.spans += map(span_of, scope.spans)

    def until(self, count: int) -> list[Span]:
        """Wait for so many spans."""
        self.until_true(lambda: len(self.spans) >= count)
        return self.spans

    def until_true(self, done: Callable[[], object]) -> None:
        """Wait until something has come."""
        end = time.monotonic() + LIMIT
        while not done():
            assert time.monotonic() < end, (self.spans, self.logs)
            time.sleep(0.02)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def span_of(found: Any) -> Span:
    values = {
        one.key: getattr(one.value, one.value.WhichOneof("value")) for one in found.attributes
    }
    kinds = {1: "broker", 2: "worker", 3: "client", 4: "producer", 5: "consumer"}
    return Span(
        kinds[found.kind],
        found.name,
        found.trace_id.hex(),
        found.span_id.hex(),
        found.parent_span_id.hex(),
        found.status.code,
        values,
        [event.name for event in found.events],
        found.start_time_unix_nano,
        found.end_time_unix_nano,
    )


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture
def provider(collector: Collector) -> Iterator[TracerProvider]:
    made = TracerProvider(shutdown_on_exit=False)
    made.add_span_processor(SimpleSpanProcessor(OtlpExporter(collector.url)))
    yield made
    made.shutdown()


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker(bind="tcp://127.0.0.1:*") as made:
        yield made


@pytest.fixture
def exporter(shell: Shell, broker: Broker, collector: Collector) -> Running:
    """`majordomus metrics`, which sends the broker's spans."""
    running = shell.start(
        *("metrics", "--bind", "127.0.0.1:0", "--otlp", collector.url),
        *("--broker", broker.endpoints[0]),
    )
    running.out.until("listening on")
    time.sleep(0.5)  # its first question says where it begins
    return running


def by_kind(spans: list[Span], kind: str) -> list[Span]:
    return [span for span in spans if span.kind == kind]


def check_tree(spans: list[Span]) -> Span:
    """All spans are of one trace, below one span of a client, and lie within it."""
    (client,) = by_kind(spans, "client")
    assert client.parent == ""
    assert {span.trace for span in spans} == {client.trace}
    assert {span.parent for span in spans} == {"", client.id}
    return client


def test_call_has_spans_of_client_broker_and_worker(
    broker: Broker, provider: TracerProvider, collector: Collector, exporter: Running
) -> None:
    worker = TracedWorker(broker.endpoints, tracer_provider=provider)
    worker.add("echo", lambda request: request.frames)
    with worker, TracedClient(broker.endpoints, tracer_provider=provider) as client:
        worker.wait_ready()
        assert client.call("echo", b"x", timeout=LIMIT).body == b"x"
        spans = collector.until(3)
        parent = check_tree(spans)
        (at_broker,), (at_worker,) = by_kind(spans, "broker"), by_kind(spans, "worker")
        assert [span.name for span in (parent, at_broker, at_worker)] == [
            *("echo", "broker echo", "echo"),
        ]
        assert at_broker.events == ["dispatched"]
        assert at_broker.attributes["majordomus.broker"] == broker.endpoints[0]
        assert at_worker.attributes["majordomus.attempt"] == 1
        assert parent.began <= at_worker.began <= at_worker.ended <= parent.ended
        assert at_broker.ended - at_broker.began <= parent.ended - parent.began
        # `explain` finds the request by the trace id alone.
        status, story = client.call("mmi.explain", parent.trace).frames
        assert (status, b'"service":"echo"' in story) == (b"200", True)
    assert exporter.stop() == 0


def test_retried_request_has_a_span_of_each_worker_that_ended_it_and_all_dispatches(
    broker: Broker, provider: TracerProvider, collector: Collector, exporter: Running, shell: Shell
) -> None:
    """The first worker is killed while it holds the request; its span is lost with it."""
    shell.write(
        "lost.py",
        "import time\nfrom majordomus import Worker\nworker = Worker()\n"
        "@worker.service('echo')\ndef echo(request):\n    print('got', flush=True)\n"
        "    time.sleep(60)\n",
    )
    code = "import lost; lost.worker.configure(broker=__import__('sys').argv[1]); lost.worker.run()"
    first = shell.adopt([sys.executable, "-c", code, broker.endpoints[0]])
    with TracedClient(broker.endpoints, tracer_provider=provider) as client:
        future = client.submit("echo", b"x", timeout=LIMIT)
        first.out.until("got")
        second = TracedWorker(broker.endpoints, tracer_provider=provider)
        second.add("echo", lambda request: request.frames)
        with second:
            second.wait_ready()
            first.process.kill()
            assert future.result(LIMIT).body == b"x"
            spans = collector.until(3)
    check_tree(spans)
    (at_broker,), (at_worker,) = by_kind(spans, "broker"), by_kind(spans, "worker")
    assert at_broker.attributes["majordomus.attempts"] == 2
    assert at_broker.events[0] == at_broker.events[2] == "dispatched"
    assert at_broker.events[1].startswith("lost")
    assert at_broker.events[3] == "answered"
    assert at_worker.attributes["majordomus.attempt"] == 2


def test_hedged_call_has_one_client_span_and_a_span_of_each_attempt(
    broker: Broker, provider: TracerProvider, collector: Collector, exporter: Running
) -> None:
    release = threading.Event()
    order = iter((True, False))

    def slow_first(request: Request) -> list[bytes]:
        if next(order):
            release.wait(LIMIT)
        return request.frames

    workers = [TracedWorker(broker.endpoints, tracer_provider=provider) for _ in range(2)]
    for worker in workers:
        worker.add("echo", slow_first)
    with workers[0], workers[1], TracedClient(broker.endpoints, tracer_provider=provider) as client:
        for worker in workers:
            worker.wait_ready()
        assert client.call("echo", b"x", timeout=LIMIT, hedge_after=0.1).body == b"x"
        release.set()
        spans = collector.until(5)
    check_tree(spans)
    assert [len(by_kind(spans, kind)) for kind in ("client", "broker", "worker")] == [1, 2, 2]


def test_stream_has_spans_that_end_with_it(
    broker: Broker, provider: TracerProvider, collector: Collector, exporter: Running
) -> None:
    worker = TracedWorker(broker.endpoints, tracer_provider=provider)

    @worker.service("count")
    def count(request: Request) -> Iterator[str]:
        for n in range(3):
            yield str(n)

    with worker, TracedClient(broker.endpoints, tracer_provider=provider) as client:
        worker.wait_ready()
        stream = client.stream("count", timeout=LIMIT)
        assert next(stream).body == b"0"
        assert by_kind(collector.spans, "client") == []
        assert [part.body for part in stream] == [b"1", b"2"]
        spans = collector.until(3)
    check_tree(spans)
    assert {span.status for span in spans} == {0}


def test_closed_stream_ends_its_span(
    broker: Broker, provider: TracerProvider, collector: Collector
) -> None:
    worker = TracedWorker(broker.endpoints, tracer_provider=provider)

    @worker.service("count")
    def count(request: Request) -> Iterator[str]:
        while True:
            yield "x"

    with worker, TracedClient(broker.endpoints, tracer_provider=provider) as client:
        worker.wait_ready()
        with client.stream("count", timeout=LIMIT) as stream:
            next(stream)
        spans = collector.until(2)
    client_span = check_tree(spans)
    assert client_span.events == ["closed by the caller"]


def test_calls_that_a_handler_makes_are_below_the_span_of_the_handler(
    broker: Broker, provider: TracerProvider, collector: Collector
) -> None:
    async def scenario() -> None:
        async with TracedAsyncClient(broker.endpoints, tracer_provider=provider) as client:
            worker = TracedAsyncWorker(broker.endpoints, tracer_provider=provider)

            @worker.service("outer")
            async def outer(request: Request) -> list[bytes]:
                return (await client.call("inner", request.frames)).frames

            @worker.service("inner")
            async def inner(request: Request) -> AsyncIterator[bytes]:
                yield b"in"
                yield b"ner"

            async with worker:
                await worker.wait_ready()
                assert (await client.call("outer", timeout=LIMIT)).body == b"inner"

    asyncio.run(scenario())
    spans = {(span.kind, span.name): span for span in collector.until(4)}
    chain = [("client", "outer"), ("worker", "outer"), ("client", "inner"), ("worker", "inner")]
    parents = ["", *(spans[one].id for one in chain[:-1])]
    assert [spans[one].parent for one in chain] == parents
    assert len({span.trace for span in spans.values()}) == 1


def test_push_long_after_its_request_is_in_the_trace_of_that_request(
    broker: Broker, provider: TracerProvider, collector: Collector
) -> None:
    worker = TracedWorker(broker.endpoints, tracer_provider=provider)
    seen: list[Event] = []
    requests: list[Request] = []

    @worker.service("order")
    def order(request: Request) -> None:
        worker.push(request.client, "accepted")
        requests.append(request)

    with worker, TracedClient(broker.endpoints, tracer_provider=provider) as client:
        worker.wait_ready()
        client.on_event(seen.append)
        client.call("order", timeout=LIMIT)
        collector.until(4)
        (request,) = requests
        worker.push(request.client, "sent", metadata={"trace": request.metadata["trace"]})
        spans = collector.until(6)
    assert [event.text for event in seen] == ["accepted", "sent"]
    (caller,), (at_worker,) = by_kind(spans, "client"), by_kind(spans, "worker")
    first, second = by_kind(spans, "producer")
    assert {span.trace for span in spans} == {caller.trace}
    assert [span.name for span in (first, second)] == ["push", "push"]
    assert [first.parent, second.parent] == [at_worker.id, caller.id]
    consumers = by_kind(spans, "consumer")
    assert {span.name for span in consumers} == {"process push"}
    assert {span.parent for span in consumers} == {first.id, second.id}


@pytest.mark.parametrize("fails", [False, True])
def test_event_of_a_topic_has_spans_of_its_sender_and_of_its_handlers(
    broker: Broker, provider: TracerProvider, collector: Collector, fails: bool
) -> None:
    """A client publishes; a worker's handler publishes again; an asyncio client gets that."""
    worker = TracedWorker(broker.endpoints, tracer_provider=provider)
    worker.add("any", lambda request: None)

    @worker.on_event("in.*")
    def again(event: Event) -> None:
        if fails:
            raise ValueError("no")
        worker.publish("out.x", event.frames)

    async def scenario() -> None:
        got = asyncio.Event()

        async def take(event: Event) -> None:
            got.set()

        async with TracedAsyncClient(broker.endpoints, tracer_provider=provider) as client:
            await client.subscribe("out.>", take)
            await asyncio.to_thread(worker.wait_ready)
            await client.call("mmi.broker", timeout=LIMIT)
            await client.publish("in.x", "hello")
            if not fails:
                await asyncio.wait_for(got.wait(), LIMIT)

    with worker:
        asyncio.run(scenario())
        spans = collector.until(3 if fails else 5)
    found = {span.name: span for span in spans}
    sent, taken = found["publish in.x"], found["process in.x"]
    assert (sent.kind, sent.parent, taken.kind, taken.parent) == (
        *("producer", ""),
        *("consumer", sent.id),
    )
    assert sent.attributes["messaging.destination.name"] == "in.x"
    assert taken.status == (2 if fails else 0)
    if not fails:
        again_sent, again_taken = found["publish out.x"], found["process out.x"]
        assert [again_sent.parent, again_taken.parent] == [taken.id, again_sent.id]
    assert len({span.trace for span in spans if span.kind != "client"}) == 1


@pytest.mark.parametrize("fails", [False, True])
def test_span_of_a_reply_that_comes_later_ends_with_the_reply(
    broker: Broker, provider: TracerProvider, collector: Collector, fails: bool
) -> None:
    worker = TracedWorker(broker.endpoints, tracer_provider=provider)
    later: list[DeferredReply] = []

    @worker.service("later")
    async def answer_later(request: Request) -> None:
        later.append(request.reply_later())

    with worker, TracedClient(broker.endpoints, tracer_provider=provider) as client:
        worker.wait_ready()
        future = client.submit("later", timeout=LIMIT)
        collector.until_true(lambda: later)
        time.sleep(0.05)
        assert collector.spans == []
        if fails:
            later.pop().fail(422, "no")
        else:
            later.pop().reply("yes")
        assert (future.exception(LIMIT) is not None) == fails
        spans = collector.until(2)
    check_tree(spans)
    (at_worker,) = by_kind(spans, "worker")
    assert at_worker.events == ["replies later"]
    assert at_worker.attributes["majordomus.status"] == (422 if fails else 200)
    assert at_worker.ended - at_worker.began > 50_000_000


def test_handler_in_a_process_has_a_span_and_its_calls_are_below_it(
    broker: Broker, provider: TracerProvider, collector: Collector
) -> None:
    worker = TracedWorker(broker.endpoints, tracer_provider=provider, processes=1)
    worker.add("through", in_process.through, run="process")
    worker.add("parts", in_process.parts, run="process")
    worker.add("fails", in_process.fails, run="process")
    worker.add("echo", lambda request: request.frames)
    with worker, TracedClient(broker.endpoints, tracer_provider=provider) as client:
        worker.wait_ready()
        assert client.call("through", broker.endpoints[0], timeout=LIMIT).body == b"inner"
        spans = collector.until(3)
        (caller,) = by_kind(spans, "client")
        inner, outer = by_kind(spans, "worker")
        assert [inner.name, outer.name] == ["echo", "through"]
        assert [inner.parent, outer.parent] == [outer.id, caller.id]
        collector.spans.clear()
        assert [part.text for part in client.stream("parts", timeout=LIMIT)] == ["0", "1"]
        check_tree(collector.until(2))
        collector.spans.clear()
        with pytest.raises(BadRequest):
            client.call("fails", timeout=LIMIT)
        spans = collector.until(2)
        assert {span.attributes["majordomus.status"] for span in spans} == {400}


def test_traced_client_in_a_handler_of_a_plain_worker_stays_in_its_trace(
    broker: Broker, provider: TracerProvider, collector: Collector
) -> None:
    worker = Worker(broker.endpoints)
    inner = TracedClient(broker.endpoints, tracer_provider=provider)
    worker.add("outer", lambda request: inner.call("inner").frames)
    worker.add("inner", lambda request: b"in")
    with worker, inner, TracedClient(broker.endpoints, tracer_provider=provider) as client:
        worker.wait_ready()
        assert client.call("outer", timeout=LIMIT).body == b"in"
        below, above = collector.until(2)
    assert (below.trace, below.parent) == (above.trace, above.id)


def test_metrics_are_sent_to_a_collector(
    shell: Shell, broker: Broker, collector: Collector
) -> None:
    worker = Worker(broker.endpoints)
    worker.add("echo", lambda request: request.frames)
    with worker, Client(broker.endpoints) as client:
        worker.wait_ready()
        for _ in range(3):
            client.call("echo", b"x", timeout=LIMIT)
        shell.start(
            *("metrics", "--bind", "127.0.0.1:0", "--broker", broker.endpoints[0]),
            *("--otlp", collector.url, "--otlp-interval", "0.1"),
        )
        collector.until_true(lambda: "majordomus_request_duration_seconds" in collector.metrics)
    found = collector.metrics
    (accepted,) = found["majordomus_requests_accepted"].sum.data_points
    assert found["majordomus_requests_accepted"].sum.is_monotonic
    assert accepted.as_double == 3
    assert 0 < accepted.start_time_unix_nano < accepted.time_unix_nano
    assert {one.key: one.value.string_value for one in accepted.attributes} == {
        "broker": broker.endpoints[0]
    }
    duration = found["majordomus_request_duration_seconds"]
    (point,) = duration.histogram.data_points
    assert (duration.unit, point.count, sum(point.bucket_counts)) == ("s", 3, 3)
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
    (up,) = found["majordomus_up"].gauge.data_points
    assert up.as_double == 1


def test_metrics_of_a_worker_are_sent_to_a_collector(
    shell: Shell, broker: Broker, collector: Collector
) -> None:
    shell.write("shop.py", SHOP)
    running = shell.start(
        *("worker", "shop:worker", "--broker", broker.endpoints[0]),
        *("--otlp", collector.url, "--otlp-interval", "600"),
    )
    running.out.until("serving echo")
    with Client(broker.endpoints) as client:
        for _ in range(3):
            client.call("echo", b"x", timeout=LIMIT)
    assert running.stop() == 0  # the first message came before the calls, the last one at the end
    (point,) = collector.metrics["majordomus_worker_handler_seconds"].histogram.data_points
    assert point.count == 3
    assert {one.key: one.value.string_value for one in point.attributes} == {
        "service": "echo",
        "outcome": "answered",
    }
    assert collector.resource["service.name"] == "majordomus-worker"
    assert collector.resource["service.instance.id"]
    code, _, error = shell.run("worker", "shop:worker", "--otlp", "nowhere")
    problem = "'nowhere' is no endpoint of OTLP: write http://HOST:4318"
    assert (code, error) == (2, f"majordomus worker: {problem}\n")


def test_exemplars_of_buckets_are_sent_with_their_trace_ids() -> None:
    family = HistogramMetricFamily("x_seconds", "X.", labels=["broker"])
    traced = Exemplar({"trace_id": "ab" * 16}, 0.5, 1.5)
    family.add_metric(["b"], [("0.1", 1, None), ("1", 3, traced), ("+Inf", 4, None)], 9.0)
    message = ExportMetricsServiceRequest.FromString(encoded([family], {}, 5, 7))
    (metric,) = message.resource_metrics[0].scope_metrics[0].metrics
    (point,) = metric.histogram.data_points
    assert (list(point.bucket_counts), list(point.explicit_bounds)) == ([1, 2, 1], [0.1, 1.0])
    assert (point.count, point.sum, point.start_time_unix_nano) == (4, 9.0, 5)
    (exemplar,) = point.exemplars
    assert (exemplar.trace_id.hex(), exemplar.time_unix_nano) == ("ab" * 16, 1_500_000_000)


def attributes_of(record: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in record.attributes}


def test_log_records_are_sent_with_the_span_in_which_they_were_made(
    broker: Broker, provider: TracerProvider, collector: Collector
) -> None:
    log = logging.getLogger("test.otel.shop")
    handler = OtlpLogs(collector.url, service="shop")
    log.addHandler(handler)
    worker = TracedWorker(broker.endpoints, tracer_provider=provider)

    @worker.service("log")
    def write(request: Request) -> None:
        log.error("broken: %s", "\udcff", extra={"fact": ("broken", {"why": "x", "n": 3})})

    try:
        with worker, TracedClient(broker.endpoints, tracer_provider=provider) as client:
            worker.wait_ready()
            client.call("log", timeout=LIMIT)
            (at_worker,) = by_kind(collector.until(2), "worker")
    finally:
        log.removeHandler(handler)
        handler.close()
    (record,) = collector.logs
    assert record.body.string_value == "broken: \\udcff"
    assert (record.trace_id.hex(), record.span_id.hex()) == (at_worker.trace, at_worker.id)
    assert (record.severity_text, record.severity_number) == ("ERROR", 17)
    assert attributes_of(record) == {"event.name": "broken", "why": "x", "n": 3}


def test_flood_of_log_records_is_bounded_and_counted(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MOST_WAITING", 10)
    handler = OtlpLogs(collector.url)
    for n in range(25):
        handler.handle(logging.makeLogRecord({"msg": f"line {n}", "levelno": logging.INFO}))
    handler.close()
    texts = [one.body.string_value for one in collector.logs]
    assert texts == [*(f"line {n}" for n in range(10)), f"15 {logs.TOO_MANY}"]


def test_commands_send_their_logs_to_a_collector(shell: Shell, collector: Collector) -> None:
    flags = ("--bind", "tcp://127.0.0.1:*", "-v", "--log-otlp", collector.url)
    running = shell.start("broker", *flags)
    url = running.out.until("listening on").split()[-1]
    with Client(url) as client:
        client.call("mmi.broker", timeout=LIMIT)
    assert running.stop() == 0
    assert "drain" in {attributes_of(one).get("event.name") for one in collector.logs}
    code, _, error = shell.run("broker", "--check", "--log-otlp", "nowhere")
    problem = "'nowhere' is no endpoint of OTLP: write http://HOST:4318"
    assert (code, error) == (2, f"majordomus broker: {problem}\n")


def test_failures_are_in_the_spans(
    broker: Broker, provider: TracerProvider, collector: Collector
) -> None:
    worker = TracedWorker(broker.endpoints, tracer_provider=provider)

    @worker.service("refuses")
    def refuses(request: Request) -> None:
        raise BadRequest("no such colour")

    @worker.service("raises")
    def raises(request: Request) -> None:
        raise ValueError("a fault")

    with worker, TracedClient(broker.endpoints, tracer_provider=provider) as client:
        worker.wait_ready()
        with pytest.raises(BadRequest):
            client.call("refuses", timeout=LIMIT)
        with pytest.raises(HandlerFailed):
            client.call("raises", timeout=LIMIT)
        spans = collector.until(4)
    found = {(span.kind, span.name): span for span in spans}
    assert {span.status for span in spans} == {2}
    assert found["client", "refuses"].attributes["majordomus.status"] == 400
    assert found["worker", "refuses"].attributes["majordomus.status"] == 400
    assert found["worker", "raises"].events == ["exception"]
    assert found["client", "raises"].attributes["majordomus.status"] == 500


def test_trace_of_the_caller_is_kept_and_one_that_is_invalid_is_ignored(
    broker: Broker, provider: TracerProvider, collector: Collector
) -> None:
    worker = TracedWorker(broker.endpoints, tracer_provider=provider)
    worker.add("echo", lambda request: request.frames)
    own = f"00-{'ab' * 16}-{'cd' * 8}-01"
    with worker, TracedClient(broker.endpoints, tracer_provider=provider) as client:
        worker.wait_ready()
        for trace in (own, "rubbish", 7):
            client.call("echo", timeout=LIMIT, metadata={"trace": trace})
        spans = by_kind(collector.until(6), "worker")
    assert (spans[0].trace, spans[0].parent) == ("ab" * 16, "cd" * 8)
    assert [span.parent for span in spans[1:]] == ["", ""]


@pytest.mark.parametrize(
    "value",
    [
        *(None, 7, "", "00-abc-def-01", f"00-{'0' * 32}-{'cd' * 8}-01"),
        *(f"00-{'ab' * 16}-{'0' * 16}-01", f"ff-{'ab' * 16}-{'cd' * 8}-01"),
        f"00-{'AB' * 16}-{'cd' * 8}-01",
    ],
)
def test_invalid_traceparent_is_no_parent(value: object) -> None:
    assert parent_of(value) is None


def test_traceparent_is_written_as_the_recommendation_of_w3c_has_it() -> None:
    ids = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0xF067AA0BA902B7
    context = SpanContext(*ids, is_remote=False, trace_flags=TraceFlags(1))
    assert traceparent_of(context) == "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def ended(trace: str) -> EndedRequest:
    return EndedRequest(0.0, "0a-1", "echo", 408, "too late", 0.5, 0.25, 1, "0b", "", trace)


def test_request_that_is_not_sampled_has_no_span(
    provider: TracerProvider, collector: Collector
) -> None:
    spans = BrokerSpans("tcp://b", provider, clock=lambda: 10_000_000_000)
    assert not spans.add(ended(""))
    assert not spans.add(ended(f"00-{'ab' * 16}-{'cd' * 8}-00"))
    assert spans.add(ended(f"00-{'ab' * 16}-{'cd' * 8}-01"))
    (span,) = collector.until(1)
    assert (span.began, span.ended, span.status) == (9_500_000_000, 10_000_000_000, 2)


def test_collector_that_is_not_there_costs_spans_and_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OtlpExporter("http://127.0.0.1:1")))
    for _ in range(3):
        provider.get_tracer("majordomus").start_span("x").end()
    provider.shutdown()
    assert [one.getMessage() for one in caplog.records if one.name == "majordomus.otel"] == [
        "1 spans were not sent: [Errno 111] Connection refused"
    ]


def test_failure_whose_text_is_no_utf8_is_sent_escaped(
    provider: TracerProvider, collector: Collector
) -> None:
    span = provider.get_tracer("majordomus").start_span("a\udcff", kind=SpanKind.CLIENT)
    set_failure(span, HandlerFailed("b\udcfe"))
    span.set_attribute("x", "c\udcfd")
    span.end()
    (found,) = collector.until(1)
    assert (found.name, found.attributes["x"]) == ("a\\udcff", "c\\udcfd")


@pytest.mark.parametrize("text", ["nothing", "a b=c", "x=\u00e9", "x=a%0Ab", "=y"])
def test_headers_that_are_none_are_an_error(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", text)
    with pytest.raises(ConfigurationError, match="expected NAME=VALUE"):
        OtlpExporter("http://127.0.0.1:1")


@pytest.mark.parametrize(
    "url", ["http://u:p@x:1", "http://x:70000", "grpc://x:4317", "127.0.0.1:4318", "http://"]
)
def test_endpoint_that_is_no_url_of_http_is_an_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match="write http://HOST:4318"):
        OtlpExporter(url)


def test_opentelemetry_is_not_imported_unless_it_is_used() -> None:
    code = (
        "import sys, majordomus\n"
        "majordomus.Client, majordomus.AsyncClient, majordomus.Worker, majordomus.AsyncWorker,"
        " majordomus.Broker\n"
        "import majordomus.cli.run.broker, majordomus.cli.run.worker, majordomus.observe.snapshot\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'prometheus',"
        " 'starlette', 'uvicorn'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=None
    )
    assert done.stdout == "[]\n"
