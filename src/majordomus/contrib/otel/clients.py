"""Clients that make a span for each call, and send its context with the request.

All attempts of a call belong to one span: those after a lost connection, and hedges.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Tracer, TracerProvider

from majordomus.contrib.otel.context import (
    attributes_of,
    caller_context,
    make_tracer,
    set_end,
    spanned,
    with_trace,
)
from majordomus.contrib.otel.events import publishing, traced_handler
from majordomus.net import endpoints
from majordomus.net.bodies import Body, Reply
from majordomus.net.client.async_call_runner import AsyncCallRunner
from majordomus.net.client.async_client import AsyncClient
from majordomus.net.client.base import ClientBase
from majordomus.net.client.call_runner import CallRunner
from majordomus.net.client.calls import CallOptions, ConversationCall, PendingCall
from majordomus.net.client.client import Client
from majordomus.net.client.conversation import AsyncConversation, Conversation
from majordomus.net.client.gather import AsyncGathering, Gathering
from majordomus.net.client.streams import AsyncStream, BaseStream, Stream
from majordomus.net.client.typed import (
    AsyncTypedConversation,
    AsyncTypedStream,
    TypedConversation,
    TypedStream,
)
from majordomus.net.events import Handler


class _SpannedReading(BaseStream):
    """A stream whose span ends when its last part has been read, or when it is closed."""

    span: Span = trace.INVALID_SPAN

    def _read(self) -> Reply | None:
        try:
            reply = super()._read()
        except BaseException as error:
            self._end(error)
            raise
        if self._over:
            self._end(None)
        return reply

    def _end(self, error: BaseException | None) -> None:
        set_end(self.span, error)
        self.span.end()

    def _close_span(self) -> None:
        if self.span.is_recording():
            self.span.add_event("closed by the caller")
            self.span.end()


class TracedStream(_SpannedReading, Stream):
    """A `Stream` with a span."""

    def close(self) -> None:
        super().close()
        self._close_span()


class TracedConversation(_SpannedReading, Conversation):
    """A `Conversation` with a span."""

    def close(self) -> None:
        super().close()
        self._close_span()


class TracedAsyncStream(_SpannedReading, AsyncStream):
    """An `AsyncStream` with a span."""

    async def aclose(self) -> None:
        await super().aclose()
        self._close_span()


class TracedAsyncConversation(_SpannedReading, AsyncConversation):
    """An `AsyncConversation` with a span."""

    async def aclose(self) -> None:
        await super().aclose()
        self._close_span()


OPTIONS: Final = ("timeout", "fail_fast", "once", "to", "metadata")


def _packed(
    client: ClientBase, service: str | bytes, body: Body, more: bool, options: dict[str, Any]
) -> CallOptions:
    """Pack the options of a stream or conversation. Raises: TypeError for an unknown one."""
    unknown = set(options) - set(OPTIONS)
    if unknown:
        raise TypeError(f"unexpected arguments: {', '.join(sorted(unknown))}")
    given = {"timeout": None, "fail_fast": False, "once": False, "to": b"", "metadata": None}
    return client._options(service, body, **(given | options), more=more)


def _begin(tracer: Tracer, service: str | bytes) -> Span:
    attributes = attributes_of(service)
    context = caller_context()
    return tracer.start_span(attributes["rpc.method"], context, SpanKind.CLIENT, attributes)


class TracedClient(Client):
    """A `Client` that makes a span for each call.

    `tracer_provider`: by default that of the process. The other arguments are those of `Client`;
    the dialect is MDP/0.3, which has metadata.
    """

    _runner: CallRunner

    def __init__(
        self,
        broker: Any = endpoints.DEFAULT,
        *,
        tracer_provider: TracerProvider | None = None,
        **options: Any,
    ) -> None:
        self._tracer = make_tracer(tracer_provider)
        super().__init__(broker, **options)

    def call(self, service: str | bytes, body: Any = None, **options: Any) -> Any:
        """As `Client.call`."""
        with spanned(self._tracer, service, SpanKind.CLIENT, caller_context()) as span:
            return super().call(service, body, **with_trace(options, span))

    def submit(self, service: str | bytes, body: Body = None, **options: Any) -> Future[Reply]:
        """As `Client.submit`. The span ends when the future is done."""
        span = _begin(self._tracer, service)
        try:
            future = super().submit(service, body, **with_trace(options, span))
        except BaseException as error:
            set_end(span, error)
            span.end()
            raise
        future.add_done_callback(lambda done: _end_with(span, done))
        return future

    def send(self, service: str | bytes, body: Body = None, **options: Any) -> None:
        """As `Client.send`."""
        with spanned(self._tracer, service, SpanKind.CLIENT, caller_context()) as span:
            super().send(service, body, **with_trace(options, span))

    def submit_durable(self, service: str | bytes, body: Body = None, **options: Any) -> str:
        """As `Client.submit_durable`. The span ends when the request is stored."""
        with spanned(self._tracer, service, SpanKind.CLIENT, caller_context()) as span:
            return super().submit_durable(service, body, **with_trace(options, span))

    def stream(
        self, service: str | bytes, body: Body = None, *, of: Any = None, **options: Any
    ) -> Any:
        """As `Client.stream`. The span ends with the stream."""
        span = _begin(self._tracer, service)
        packed = _packed(self, service, body, False, with_trace(options, span))
        made = TracedStream(self._runner, PendingCall(packed, reads=True))
        made.span = span
        return made if of is None else TypedStream(made, of)

    def open(
        self, service: str | bytes, body: Body = None, *, of: Any = None, **options: Any
    ) -> Any:
        """As `Client.open`. The span ends with the conversation."""
        span = _begin(self._tracer, service)
        packed = _packed(self, service, body, True, with_trace(options, span))
        made = TracedConversation(self._runner, ConversationCall(packed))
        made.span = span
        return made if of is None else TypedConversation(made, of)

    def gather(self, service: str | bytes, body: Body = None, **options: Any) -> Gathering:
        """As `Client.gather`. It has no span of its own: the workers' spans have the current one as
        their parent."""
        return super().gather(service, body, **with_trace(options, trace.get_current_span()))

    def publish(self, topic: str | bytes, body: Body = None, **options: Any) -> None:
        """As `Client.publish`."""
        with publishing(self._tracer, topic, options):
            super().publish(topic, body, **options)

    def _prepared_event(self, handler: Handler) -> Handler:
        return traced_handler(handler, self._tracer)


class TracedAsyncClient(AsyncClient):
    """An `AsyncClient` that makes a span for each call. Its arguments are those of
    `TracedClient`."""

    _runner: AsyncCallRunner

    def __init__(
        self,
        broker: Any = endpoints.DEFAULT,
        *,
        tracer_provider: TracerProvider | None = None,
        **options: Any,
    ) -> None:
        self._tracer = make_tracer(tracer_provider)
        super().__init__(broker, **options)

    async def call(self, service: str | bytes, body: Any = None, **options: Any) -> Any:
        """As `AsyncClient.call`."""
        with spanned(self._tracer, service, SpanKind.CLIENT, caller_context()) as span:
            return await super().call(service, body, **with_trace(options, span))

    async def send(self, service: str | bytes, body: Body = None, **options: Any) -> None:
        """As `AsyncClient.send`."""
        with spanned(self._tracer, service, SpanKind.CLIENT, caller_context()) as span:
            await super().send(service, body, **with_trace(options, span))

    async def submit_durable(self, service: str | bytes, body: Body = None, **options: Any) -> str:
        """As `AsyncClient.submit_durable`. The span ends when the request is stored."""
        with spanned(self._tracer, service, SpanKind.CLIENT, caller_context()) as span:
            return await super().submit_durable(service, body, **with_trace(options, span))

    def stream(
        self, service: str | bytes, body: Body = None, *, of: Any = None, **options: Any
    ) -> Any:
        """As `AsyncClient.stream`. The span ends with the stream."""
        span = _begin(self._tracer, service)
        packed = _packed(self, service, body, False, with_trace(options, span))
        made = TracedAsyncStream(self._runner, PendingCall(packed, reads=True))
        made.span = span
        return made if of is None else AsyncTypedStream(made, of)

    def open(
        self, service: str | bytes, body: Body = None, *, of: Any = None, **options: Any
    ) -> Any:
        """As `AsyncClient.open`. The span ends with the conversation."""
        span = _begin(self._tracer, service)
        packed = _packed(self, service, body, True, with_trace(options, span))
        made = TracedAsyncConversation(self._runner, ConversationCall(packed))
        made.span = span
        return made if of is None else AsyncTypedConversation(made, of)

    def gather(self, service: str | bytes, body: Body = None, **options: Any) -> AsyncGathering:
        """As `AsyncClient.gather`. It has no span of its own."""
        return super().gather(service, body, **with_trace(options, trace.get_current_span()))

    async def publish(self, topic: str | bytes, body: Body = None, **options: Any) -> None:
        """As `AsyncClient.publish`."""
        with publishing(self._tracer, topic, options):
            await super().publish(topic, body, **options)

    def _prepared_event(self, handler: Handler) -> Handler:
        return traced_handler(handler, self._tracer)


def _end_with(span: Span, done: Future[Reply]) -> None:
    if done.cancelled():
        span.add_event("cancelled by the caller")
    else:
        set_end(span, done.exception())
    span.end()
