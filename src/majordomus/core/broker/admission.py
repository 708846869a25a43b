"""What a client's request must pass before it is accepted: sizes, flags, names, limits (rules 4 and
11).

Whatever does not pass is refused with a status and a sentence, and never becomes a request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from majordomus.core.broker import mmi
from majordomus.core.broker.balancing.strategy import LeastOutstanding
from majordomus.core.broker.error_texts import TARGET_GONE, no_worker_serves
from majordomus.core.broker.queueing import exceeded_bound
from majordomus.core.broker.state.access_rules import full_name
from majordomus.core.broker.state.peers import conversation
from majordomus.core.broker.state.requests import AcceptedRequest
from majordomus.core.broker.state.services import Service
from majordomus.core.broker.state.transitions import AT_WORKER, LOST, SERVING
from majordomus.core.broker.streams import stream_of
from majordomus.errors import RemoteProtocolError
from majordomus.protocol import metadata as meta
from majordomus.protocol import spec

if TYPE_CHECKING:
    from majordomus.core.broker.authorization import Authorization
    from majordomus.core.broker.completion import Completion
    from majordomus.core.broker.hooks.installed import InstalledHooks
    from majordomus.core.broker.queueing import Queueing
    from majordomus.core.broker.settings import BrokerSettings
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.registry import Registry
    from majordomus.core.broker.state.workers import RegisteredWorker
    from majordomus.protocol.spec import Dialect, Frame

NOT_YET = {
    spec.CRITICAL: "a flag that this broker does not know",
    spec.DURABLE: "stored requests",
}
NOT_YET_FLAGS = spec.CRITICAL | spec.DURABLE
KEPT_FLAGS = spec.METADATA | spec.ONCE | spec.ONE_WAY | spec.FAIL_FAST | spec.MORE
_KEPT = KEPT_FLAGS
STREAM_WITHOUT_ANSWER = spec.ONE_WAY | spec.MORE
HEDGE: Final = b"\xa5hedge"
"""The metadata key `hedge` in MessagePack. Metadata without these bytes need not be unpacked."""
NO_FIRST_ATTEMPT: Final = "the request that this is a second try of is at no worker"


class RefusalError(Exception):
    """A request does not pass. ``status`` and ``text`` are what its client is told."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text


def size_of(body: list[Frame]) -> int:
    """Bytes of a body."""
    size = 0
    for frame in body:
        size += len(frame)
    return size


class Admission:
    """Turns what a client asks into a request, or refuses it."""

    def __init__(
        self,
        registry: Registry,
        queueing: Queueing,
        completion: Completion,
        authorization: Authorization,
        hooks: InstalledHooks,
    ) -> None:
        self.registry = registry
        self.queueing = queueing
        self.completion = completion
        self.authorization = authorization
        self.hooks = hooks
        self.configure(registry.settings)

    def configure(self, settings: BrokerSettings) -> None:
        """These hold from now on."""
        self._max_frames = settings.max_frames
        self._max_message = settings.max_message
        self._max_open = settings.max_open
        self._default_ttl = settings.default_ttl
        self._max_ttl = settings.max_ttl

    def admit(
        self,
        peer: Peer,
        dialect: Dialect,
        envelope: tuple[Frame, ...],
        key: object,
        id: int,
        flags: int,
        ttl: float,
        name: bytes,
        address: bytes,
        metadata: bytes,
        body: list[Frame],
        now: float,
    ) -> None:
        """Accept one request and place it. `key` is that of its conversation, None where nobody
        else will speak of it; `ttl` is in seconds, 0 for none.

        Raises:
            RefusalError: the request may not be accepted.
        """
        size = self._size(body)
        field = metadata
        if self.registry.draining:
            raise RefusalError(spec.UNAVAILABLE, "the broker drains")
        if flags & NOT_YET_FLAGS:
            raise RefusalError(spec.NOT_IMPLEMENTED, f"not implemented: {_unknown(flags)}")
        if flags & STREAM_WITHOUT_ANSWER == STREAM_WITHOUT_ANSWER:
            raise RefusalError(spec.BAD_REQUEST, "a stream from the client cannot be one-way")
        if metadata or flags & (spec.METADATA | spec.BROKER_METADATA):
            metadata = self._metadata(metadata, flags)
            flags = flags | spec.METADATA if metadata else flags & ~spec.METADATA
        if len(peer.open) >= self._max_open:
            raise RefusalError(spec.TOO_MANY, f"{len(peer.open)} conversations are open already")
        called = name
        if self.registry.rights is not None:
            name = self._allowed(peer, called, body)
        service = peer.last_service
        if service is None or service.name != name or not service.known:
            service = self.service(name)
            peer.last_service = service if service.newest_worker is not None else None
        target = self._find_target(address, name, called) if address else None
        if (
            flags & spec.FAIL_FAST
            and self.hooks.holding is None
            and not self._has_serving_worker(service)
        ):
            self.registry.tidy(service)
            raise RefusalError(spec.UNAVAILABLE, no_worker_serves(self.registry, called, peer))
        request = AcceptedRequest.__new__(AcceptedRequest)
        request.fill(
            peer,
            dialect,
            envelope,
            key if key is not None else -self.registry.next_number(),
            id,
            service,
            body,
            size,
            flags & _KEPT,
            metadata,
            now,
            now + min(ttl or self._default_ttl, self._max_ttl),
        )
        if target is not None:
            request.target = target
        if called is not name:
            request.called = called
        if metadata and HEDGE in metadata and not avoid_first_worker(request):
            self.registry.tidy(service)
            raise RefusalError(spec.UNAVAILABLE, NO_FIRST_ATTEMPT)
        if flags & spec.MORE:
            stream_of(request)
        self.completion.accept(request)
        if self.hooks.holding is not None:
            self.hooks.holding.request(request, field, now)
        elif service.own:
            self._answer_mmi(request, now)
        else:
            self.queueing.place(request, now)

    def proceed(self, request: AcceptedRequest, now: float, redirect: bytes | None = None) -> None:
        """What comes after the hooks: rights, for what the client asked for, and its place.
        `redirect`: the full name of the service that it shall go to instead."""
        if self.registry.rights is not None:
            peer, caller = request.peer, self.authorization.with_prefix(request)
            refusal = self.authorization.refuses_call(caller, peer, request.called, request.body)
            if refusal is not None:
                status, text = refusal
                self.completion.fail(request, status, text, now)
                return
            if not self._apply_prefix(request, caller.prefix, redirect is None, now):
                return
        elif redirect is None and not self._target_serves(request, now):
            return
        if redirect is None or self._reroute(request, redirect, now):
            self.route(request, now)

    def proceed_to_worker(self, request: AcceptedRequest, worker_id: bytes, now: float) -> None:
        """`proceed`, with the worker that a hook has named."""
        try:
            request.target = self.target(worker_id, request.service.name, request.called)
        except RefusalError as error:
            self.completion.fail(request, error.status, error.text, now)
        else:
            self.proceed(request, now)

    def exceeded_bound(self, request: AcceptedRequest, more: int = 0) -> str:
        """See `queueing.exceeded_bound`."""
        return exceeded_bound(self.registry, request, more)

    def _apply_prefix(
        self, request: AcceptedRequest, prefix: bytes, stays: bool, now: float
    ) -> bool:
        """Give `request` to what its caller's groups call so, if a hook has named them; False when
        that has ended it."""
        target, name = request.target, full_name(prefix, request.called)
        if stays and name != request.service.name and not self._reroute(request, name, now):
            return False
        request.target = target
        return not stays or self._target_serves(request, now)

    def _target_serves(self, request: AcceptedRequest, now: float) -> bool:
        """Whether the worker that was asked for, if one was, serves it; False when that has ended
        `request`."""
        target = request.target
        if target is None or request.service.name in target.services:
            return True
        text = f"no worker {target.id.hex()} serves '{request.called.decode()}'"
        self.completion.fail(request, spec.NOT_FOUND, text, now)
        return False

    def route(self, request: AcceptedRequest, now: float) -> None:
        """Answer or place what has passed everything."""
        service, target = request.service, request.target
        if target is not None and target.state is LOST:  # while a hook thought about it
            self.completion.fail(request, spec.NOT_FOUND, TARGET_GONE, now)
        elif request.flags & spec.FAIL_FAST and not self._has_serving_worker(service):
            text = no_worker_serves(self.registry, request.called, request.caller)
            self.completion.fail(request, spec.UNAVAILABLE, text, now)
        elif service.own:
            self._answer_mmi(request, now)
        else:
            self.queueing.place(request, now)

    def _answer_mmi(self, request: AcceptedRequest, now: float) -> None:
        name, prefix = request.service.name, request.caller.prefix
        frames = mmi.answer(self.registry, name, request.body, now, prefix)
        self.completion.answer(request, spec.OK, frames, 0, b"", now)

    def _reroute(self, request: AcceptedRequest, name: bytes, now: float) -> bool:
        """Give `request` to another service; False when that has ended it."""
        try:
            service = self.service(name)
        except RefusalError as error:
            self.completion.fail(request, error.status, error.text, now)
            return False
        before, request.service = request.service, service
        before.open -= 1
        service.open += 1
        request.target = None
        self.registry.tidy(before)
        return True

    def too_large(self, body: list[Frame]) -> bool:
        """Whether the body of a reply breaks the bounds of a message (rule 4)."""
        return len(body) > self._max_frames or size_of(body) > self._max_message

    def _size(self, body: list[Frame]) -> int:
        if len(body) > self._max_frames:
            text = f"{len(body)} frames; at most {self._max_frames} are allowed"
            raise RefusalError(spec.TOO_LARGE, text)
        size = size_of(body)
        if size > self._max_message:
            text = f"{size} bytes; at most {self._max_message} are allowed"
            raise RefusalError(spec.TOO_LARGE, text)
        return size

    def _metadata(self, field: bytes, flags: int) -> bytes:
        """The sender's map as it goes on: well-formed, and without the token, which is ours."""
        if flags & spec.BROKER_METADATA:
            raise RefusalError(spec.BAD_REQUEST, "only a broker may send broker metadata")
        try:
            values = meta.unpack(field)
        except RemoteProtocolError as error:
            raise RefusalError(spec.BAD_REQUEST, f"metadata: {error}") from None
        return meta.without(field, "token") if "token" in values else field

    def service(self, name: bytes) -> Service:
        """The service of that name. Raises: RefusalError: no name, or no room for one more."""
        service = self.registry.find_service(name)
        return self._new_service(name) if service is None else service

    def _new_service(self, name: bytes) -> Service:
        problem = name_problem(name)
        if problem:
            raise RefusalError(spec.BAD_REQUEST, problem)
        if name.startswith(spec.MMI_PREFIX):
            return Service(name, LeastOutstanding())
        service = self.registry.service(name)
        if service is None:
            raise RefusalError(
                spec.TOO_MANY, f"{len(self.registry.services)} services are known already"
            )
        return service

    def _has_serving_worker(self, service: Service) -> bool:
        """Whether a request may hope for a worker that is there: one that drains takes nothing."""
        if service.name.startswith(spec.MMI_PREFIX):
            return True
        return any(worker.state is SERVING for worker in service.workers.values())

    def _allowed(self, peer: Peer, called: bytes, body: list[Frame]) -> bytes:
        """The full name of the service that `peer` may call as `called`. With hooks the right is
        asked when they have decided: they may say who asks."""
        problem = name_problem(called)
        if problem:
            raise RefusalError(spec.BAD_REQUEST, problem)
        if self.hooks.holding is None:
            refusal = self.authorization.refuses_call(peer, peer, called, body)
            if refusal is not None:
                raise RefusalError(*refusal)
        return full_name(peer.prefix, called)

    def _find_target(self, address: bytes, name: bytes, called: bytes) -> RegisteredWorker:
        """The worker that a request asks for. What its service is called may only be known when
        the hooks have said who asks: then `proceed` judges."""
        worker = self.registry.workers.get(address)
        if (
            worker is not None
            and self.hooks.holding is not None
            and self.registry.rights is not None
        ):
            return worker
        return self.target(address, name, called)

    def target(self, address: bytes, name: bytes, called: bytes) -> RegisteredWorker:
        """The worker that `address` names. Raises: RefusalError when it does not serve `name`."""
        worker = self.registry.workers.get(address)
        if worker is None or name not in worker.services:
            service = self.registry.services.get(name)
            if service is not None:
                self.registry.tidy(service)
            raise RefusalError(
                spec.NOT_FOUND, f"no worker {address.hex()} serves '{called.decode()}'"
            )
        return worker


def avoid_first_worker(request: AcceptedRequest) -> bool:
    """Keep `request`, if it is a hedge, from the worker that has the first attempt.

    A client sends a hedge, a second request for the same answer, when the first one takes long: it
    goes to another worker at once, or fails (docs/spec/mdp-0.3.md, metadata `hedge`). False when
    the first attempt is at no worker.
    """
    id = meta.unpack(request.metadata).get("hedge")
    if not isinstance(id, int):
        return True
    first = request.peer.open.get(conversation(id, request.envelope))
    if first is None or first.service is not request.service or first.state not in AT_WORKER:
        return False
    if first.worker is not None:
        request.rejected = {first.worker}
    return True


def _unknown(flags: int) -> str:
    return ", ".join(text for flag, text in NOT_YET.items() if flags & flag)


def name_problem(name: bytes) -> str:
    """What is wrong with the name of a service; empty when nothing is."""
    if not name:
        return "a service needs a name"
    if len(name) > spec.MAX_NAME:
        return f"the name of a service has at most {spec.MAX_NAME} bytes"
    try:
        name.decode()
    except UnicodeDecodeError:
        return "the name of a service must be UTF-8"
    return ""
