"""The checks that a client's message must pass to become an accepted request (rules 4 and 11).

They are sizes, flags, metadata, names, access rules and limits. A message that fails one is refused
with a status and a text; nothing is kept of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from majordomus.core.broker import mmi
from majordomus.core.broker.accel import arithmetic
from majordomus.core.broker.balancing.strategy import LeastOutstanding
from majordomus.core.broker.durable import options
from majordomus.core.broker.durable.commands import is_own, is_reserved
from majordomus.core.broker.error_texts import TARGET_GONE
from majordomus.core.broker.queueing import exceeded_bound, hopeless_now
from majordomus.core.broker.state.access_rules import full_name
from majordomus.core.broker.state.account import FRAME, REQUEST, size_of_envelope
from majordomus.core.broker.state.peers import conversation
from majordomus.core.broker.state.requests import AcceptedRequest
from majordomus.core.broker.state.services import Service
from majordomus.core.broker.state.transitions import AT_WORKER, LOST
from majordomus.core.broker.streams import stream_of
from majordomus.errors import RemoteProtocolError
from majordomus.protocol import metadata as meta
from majordomus.protocol import spec
from majordomus.protocol.fields import service_problem

if TYPE_CHECKING:
    from majordomus.core.broker.authorization import Authorization
    from majordomus.core.broker.completion import Completion
    from majordomus.core.broker.durable.commands import DurableCommands
    from majordomus.core.broker.durable.installed import InstalledStore
    from majordomus.core.broker.hooks.installed import InstalledHooks
    from majordomus.core.broker.queueing import Queueing
    from majordomus.core.broker.settings import BrokerSettings
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.registry import Registry
    from majordomus.core.broker.state.workers import RegisteredWorker
    from majordomus.protocol.spec import Dialect, Frame

UNUSUAL_FLAGS = spec.CRITICAL | spec.DURABLE
MORE_OR_DURABLE = spec.MORE | spec.DURABLE
UNKNOWN_FLAG: Final = "not implemented: a flag that this broker does not know"
NO_STORE: Final = "not implemented: this broker has no store for durable requests"
OWN_NAME: Final = "a name that the broker answers itself (mmi., $, RFC 9) cannot be durable"
KEPT_FLAGS = spec.METADATA | spec.ONCE | spec.ONE_WAY | spec.FAIL_FAST | spec.MORE
_KEPT = KEPT_FLAGS
_FRAME, _REQUEST = FRAME, REQUEST
STREAM_WITHOUT_ANSWER = spec.ONE_WAY | spec.MORE
HEDGE: Final = b"\xa5hedge"
"""The metadata key `hedge` in MessagePack. Metadata without these bytes need not be unpacked."""
NO_FIRST_ATTEMPT: Final = "this is a second attempt, but no worker has the first one"


class RefusalError(Exception):
    """A message may not become a request. ``status`` and ``text`` are for its client."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text


class Admission:
    """Accepts or refuses requests."""

    def __init__(
        self,
        registry: Registry,
        queueing: Queueing,
        completion: Completion,
        authorization: Authorization,
        hooks: InstalledHooks,
        store: InstalledStore,
    ) -> None:
        self.store = store
        self.commands: DurableCommands | None = None
        self.registry = registry
        self.queueing = queueing
        self.completion = completion
        self.authorization = authorization
        self.hooks = hooks
        self._durable_name = b""
        """The last name that may be durable: the next request has it again, as a rule."""
        self.configure(registry.settings)

    def configure(self, settings: BrokerSettings) -> None:
        """Apply settings to later requests.

        The values are copied: `admit` reads them for every request, and an attribute of a compiled
        class costs less than one of a msgspec struct.
        """
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
        id: int,
        flags: int,
        ttl: float,
        name: bytes,
        address: bytes,
        metadata: bytes,
        message: list[Frame],
        now: float,
    ) -> None:
        """Accept one request and place it.

        `name` is the client's name of the service. `address` names one worker, b"" for any. `ttl`
        is in seconds, 0 for none. The first frame of `message` is its header, which the worker's
        replaces.

        Raises:
            RefusalError: the request may not be accepted.
        """
        size = self._size(message)
        field = metadata
        if self.registry.draining and not self._is_answered_here(name):
            raise RefusalError(spec.UNAVAILABLE, "the broker is draining")
        if flags & UNUSUAL_FLAGS:
            self._check_unusual(flags, address, metadata, name)
        if flags & STREAM_WITHOUT_ANSWER == STREAM_WITHOUT_ANSWER:
            raise RefusalError(spec.BAD_REQUEST, "a stream from the client cannot be one-way")
        if metadata or flags & (spec.METADATA | spec.BROKER_METADATA):
            metadata = self._metadata(metadata, flags)
            flags = flags | spec.METADATA if metadata else flags & ~spec.METADATA
        if len(peer.requests) >= self._max_open:
            text = f"{len(peer.requests)} conversations are open already"
            raise RefusalError(spec.TOO_MANY, text)
        cost = _REQUEST + size + _FRAME * (len(message) - 1) + len(metadata)
        if envelope:
            cost += size_of_envelope(envelope)
        account, user = self.registry.account, peer.account
        if (  # `account.exceeds`, without its call
            account.held + cost > account.most
            or peer.held + cost > account.most_peer
            or user.held + cost > user.most
        ) and not self._is_answered_here(name):
            raise RefusalError(spec.TOO_MANY, account.problem(peer, cost))
        called = name
        if self.registry.rights is not None:
            name = self._allowed(peer, called, message[1:])
        service = peer.last_service
        if service is None or service.name != name or not service.known:
            service = self.service(name)
            peer.last_service = service if service.newest_worker is not None else None
        target = self._find_target(address, name, called) if address else None
        if (
            flags & spec.FAIL_FAST
            and self.hooks.holding is None
            and (hopeless := hopeless_now(self.registry, service, target, called, peer))
        ):
            self.registry.tidy(service)
            raise RefusalError(spec.UNAVAILABLE, hopeless)
        named: object = None
        if envelope or not id:
            named = conversation(id, envelope) if id else -self.registry.next_number()
        request = AcceptedRequest.__new__(AcceptedRequest)
        request.fill(
            peer,
            dialect,
            envelope,
            named,
            id,
            service,
            message,
            size,
            flags & _KEPT,
            metadata,
            now,
            now + min(ttl or self._default_ttl, self._max_ttl),
        )
        request.cost = cost
        if target is not None:
            request.target = target
        if called is not name:
            request.called = called
        if metadata and HEDGE in metadata and not avoid_first_worker(request):
            self.registry.tidy(service)
            raise RefusalError(spec.UNAVAILABLE, NO_FIRST_ATTEMPT)
        if flags & MORE_OR_DURABLE:
            if flags & spec.DURABLE:
                request.flags |= spec.DURABLE
                self._admit_durable(request, field, now)
                return
            stream_of(request)
        self.completion.accept(request)
        if self.hooks.holding is not None:
            self.hooks.holding.request(request, field, now)
        elif service.own:
            self._answer_here(request, now)
        else:
            self.queueing.place(request, now)

    def _check_unusual(self, flags: int, address: bytes, metadata: bytes, name: bytes) -> None:
        """Check the flags CRITICAL and DURABLE. Raises: RefusalError."""
        if flags & spec.CRITICAL:
            raise RefusalError(spec.NOT_IMPLEMENTED, UNKNOWN_FLAG)
        if self.store.durable is None:
            raise RefusalError(spec.NOT_IMPLEMENTED, NO_STORE)
        if name != self._durable_name:
            if is_reserved(name):
                raise RefusalError(spec.BAD_REQUEST, OWN_NAME)
            self._durable_name = name
        problem = options.read(flags, b"", bool(address))
        if metadata and HEDGE in metadata:
            problem = options.NO_HEDGE
        if isinstance(problem, str):
            raise RefusalError(spec.BAD_REQUEST, problem)

    def _admit_durable(self, request: AcceptedRequest, field: bytes, now: float) -> None:
        """Accept a request with the flag DURABLE. The hooks decide before it is stored."""
        self.completion.accept(request)
        if self.hooks.holding is not None:
            self.hooks.holding.request(request, field, now)
        else:
            self.route(request, now)

    def proceed(self, request: AcceptedRequest, now: float, redirect: bytes | None = None) -> None:
        """Check and place a request that the hooks have let pass.

        The access rules are checked for the service that the client has named. `redirect` is the
        full name of the service that gets it instead.
        """
        if self.registry.rights is not None and not self._is_own(request.called):
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
        """As `proceed`, with the worker that a hook has named."""
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
        """Move `request` to the service that its name means with `prefix`: a hook may have changed
        the groups of its caller, and so the prefix. False when that has ended it."""
        target, name = request.target, full_name(prefix, request.called)
        if stays and name != request.service.name and not self._reroute(request, name, now):
            return False
        request.target = target
        return not stays or self._target_serves(request, now)

    def _target_serves(self, request: AcceptedRequest, now: float) -> bool:
        """Check that the worker that the client has named, if any, serves the service. False when
        that has ended `request`."""
        target = request.target
        if target is None or request.service.name in target.services:
            return True
        text = f"no worker {target.id.hex()} serves '{request.called.decode()}'"
        self.completion.fail(request, spec.NOT_FOUND, text, now)
        return False

    def route(self, request: AcceptedRequest, now: float) -> None:
        """Answer or place a request that has passed all checks."""
        service, target = request.service, request.target
        if target is not None and target.state is LOST:  # lost while a decision was pending
            self.completion.fail(request, spec.NOT_FOUND, TARGET_GONE, now)
        elif request.flags & spec.FAIL_FAST and (
            hopeless := hopeless_now(self.registry, service, target, request.called, request.caller)
        ):
            self.completion.fail(request, spec.UNAVAILABLE, hopeless, now)
        elif service.own:
            self._answer_here(request, now)
        elif request.flags & spec.DURABLE and self.store.durable is not None:
            self.store.durable.submit(request, now)
        else:
            self.queueing.place(request, now)

    def _answer_here(self, request: AcceptedRequest, now: float) -> None:
        """Answer a request to a service of the broker itself, or store one to a durable service."""
        name, prefix, durable = request.service.name, request.caller.prefix, self.store.durable
        if request.service.known and durable is not None:
            durable.submit(request, now)
            return
        request.flags &= ~spec.DURABLE
        if self.commands is not None and self.commands.answer(request, now):
            return
        if not name.startswith(spec.MMI_PREFIX):
            self.completion.fail(request, spec.NOT_IMPLEMENTED, NO_STORE, now)
            return
        self.registry.counts.asked += 1
        frames = mmi.answer(self.registry, name, request.body, now, prefix)
        self.completion.answer(request, spec.OK, frames, 0, b"", now)

    def _reroute(self, request: AcceptedRequest, name: bytes, now: float) -> bool:
        """Move `request` to another service; False when that has ended it."""
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

    def _is_answered_here(self, name: bytes) -> bool:
        """Whether the broker answers at once, and so holds nothing: a full one still tells why."""
        return name.startswith(spec.MMI_PREFIX) and self.hooks.holding is None

    def too_large(self, body: list[Frame]) -> bool:
        """Whether a body exceeds the bounds of a message (rule 4)."""
        return len(body) > self._max_frames or arithmetic.size(body) > self._max_message

    def reply_too_large(self, message: list[Frame]) -> bool:
        """`too_large` for the body of a message whose first frame is its header."""
        size = arithmetic.size(message) - arithmetic.length(message[0])
        return size > self._max_message or len(message) - 1 > self._max_frames

    def _size(self, message: list[Frame]) -> int:
        """The bytes of the body of a message whose first frame is its header. Raises:
        RefusalError."""
        count = len(message) - 1
        if count > self._max_frames:
            text = f"{count} frames or more; at most {self._max_frames} are allowed"
            raise RefusalError(spec.TOO_LARGE, text)
        size = arithmetic.size(message) - arithmetic.length(message[0])
        if size > self._max_message:
            text = f"{size} bytes or more; at most {self._max_message} are allowed"
            raise RefusalError(spec.TOO_LARGE, text)
        return size

    def _metadata(self, field: bytes, flags: int) -> bytes:
        """The client's metadata for the worker: checked, and without the token, which is for the
        broker alone."""
        if flags & spec.BROKER_METADATA:
            raise RefusalError(spec.BAD_REQUEST, "only a broker may send broker metadata")
        try:
            values = meta.unpack(field)
        except RemoteProtocolError as error:
            raise RefusalError(spec.BAD_REQUEST, f"metadata: {error}") from None
        return meta.without(field, "token") if "token" in values else field

    def service(self, name: bytes) -> Service:
        """The service of that name, made if need be.

        Raises: RefusalError: the name is invalid, or the bound `max_services` is reached.
        """
        service = self.registry.find_service(name)
        return self._new_service(name) if service is None else service

    def _new_service(self, name: bytes) -> Service:
        problem = service_problem(name)
        if problem:
            raise RefusalError(spec.BAD_REQUEST, problem)
        if name.startswith(spec.MMI_PREFIX) or self._is_own(name):
            own = Service(name, LeastOutstanding())
            own.own = True
            return own
        service = self.registry.service(name)
        if service is None:
            raise RefusalError(
                spec.TOO_MANY, f"{len(self.registry.services)} services are known already"
            )
        if self.store.durable is not None and self.store.durable.is_declared(name):
            service.own = True
        return service

    def _is_own(self, name: bytes) -> bool:
        """Whether the broker answers this name itself because it has a store. Without one it
        answers that it has none, except for the names of RFC 9, which a worker may serve."""
        if self.store.durable is None:
            return name.startswith(spec.DURABLE_PREFIX)
        return is_own(name)

    def _allowed(self, peer: Peer, called: bytes, body: list[Frame]) -> bytes:
        """The full name of the service that `peer` calls as `called`, if the access rules allow it.

        With hooks the rules are checked after their decision, which may set the caller's user.
        """
        problem = service_problem(called)
        if problem:
            raise RefusalError(spec.BAD_REQUEST, problem)
        if self._is_own(called):
            return called
        if self.hooks.holding is None:
            refusal = self.authorization.refuses_call(peer, peer, called, body)
            if refusal is not None:
                raise RefusalError(*refusal)
        return full_name(peer.prefix, called)

    def _find_target(self, address: bytes, name: bytes, called: bytes) -> RegisteredWorker:
        """The worker that a client has named.

        With hooks and access rules the full name of the service is known only after the decision
        of the hooks: then `proceed` checks whether the worker serves it.
        """
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
    """Keep a hedge from the worker that has the first attempt; other requests pass unchanged.

    A client sends a hedge, a second request for the same answer, when the first one takes long. It
    goes to another worker at once, or fails (docs/spec/mdp-0.3.md, metadata `hedge`). Returns False
    when the first attempt is at no worker.
    """
    id = meta.unpack(request.metadata).get("hedge")
    if not isinstance(id, int):
        return True
    first = request.peer.find(conversation(id, request.envelope))
    if first is None or first.service is not request.service or first.state not in AT_WORKER:
        return False
    request.hedge = True
    if first.worker is not None:
        request.rejected = {first.worker}
    return True
