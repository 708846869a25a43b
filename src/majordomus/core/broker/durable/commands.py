"""The services of a broker with a store: `$durable.…`, `titanic.…` (RFC 9) and `mmi.durable…`.

docs/spec/mdp-0.3.md, section 17, defines them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from majordomus.core.broker.durable import ids, options
from majordomus.core.broker.durable.lifecycle import (
    ENDED_ALREADY,
    NO_SUCH_ID,
    NOT_ENDED,
)
from majordomus.core.broker.durable.records import Page
from majordomus.core.broker.durable.requests import Wants
from majordomus.core.broker.state.access_rules import full_name
from majordomus.core.broker.state.transitions import ENDING, OPEN
from majordomus.protocol import spec
from majordomus.protocol.fields import service_problem

if TYPE_CHECKING:
    from majordomus.core.broker.authorization import Authorization
    from majordomus.core.broker.durable.lifecycle import DurableRequests
    from majordomus.core.broker.durable.records import Answer, StoredRequest
    from majordomus.core.broker.durable.requests import DurableRequest
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.protocol.spec import Frame

RESULT: Final = b"$durable.result"
WITHDRAW: Final = b"$durable.withdraw"
FORGET: Final = b"$durable.forget"
TITANIC_REQUEST: Final = b"titanic.request"
TITANIC_REPLY: Final = b"titanic.reply"
TITANIC_CLOSE: Final = b"titanic.close"
TITANIC: Final = frozenset((TITANIC_REQUEST, TITANIC_REPLY, TITANIC_CLOSE))
MMI_DURABLE: Final = b"mmi.durable"
MMI_LIST: Final = b"mmi.durable.list"
ROWS: Final = 100
"""Rows of a page of `mmi.durable.list`."""
NO_ID: Final = "the first frame is no id: an id has 32 hexadecimal digits"


def is_own(name: bytes) -> bool:
    """Whether the broker answers this name itself when it has a store. A peer with an id may use
    it, and a request for RFC 9 is checked for the service that it names, so no access rule is asked
    about these names."""
    return name.startswith(spec.DURABLE_PREFIX) or name in TITANIC


def is_reserved(name: bytes) -> bool:
    """Whether the broker answers this name itself, and no worker does: nothing durable has it."""
    return name.startswith(spec.RESERVED_NAMES) or name in TITANIC


class DurableCommands:
    """Answers the requests to these services."""

    def __init__(self, durable: DurableRequests, authorization: Authorization) -> None:
        self.durable = durable
        self.authorization = authorization
        self.completion = durable.completion
        self._commands = {
            RESULT: self._result,
            WITHDRAW: self._withdraw,
            FORGET: self._forget,
            TITANIC_REQUEST: self._titanic_request,
            TITANIC_REPLY: self._titanic_reply,
            TITANIC_CLOSE: self._titanic_close,
            MMI_DURABLE: self._status,
            MMI_LIST: self._list,
        }

    def answer(self, request: AcceptedRequest, now: float) -> bool:
        """Answer `request`, now or when the store has. False for a name that is not one of
        these."""
        command = self._commands.get(request.service.name)
        if command is None:
            if not request.service.name.startswith(spec.DURABLE_PREFIX):
                return False
            text = f"no such service: {request.called.decode('utf-8', 'replace')}"
            self.completion.fail(request, spec.NOT_IMPLEMENTED, text, now)
            return True
        command(request, request.body, now)
        return True

    # ── ids ───────────────────────────────────────────────────────────────────────────────────────

    def _number(self, request: AcceptedRequest, body: list[Frame], now: float) -> int:
        """The number that the id in frame 0 stands for; 0 when `request` has been refused."""
        found = ids.number_of(self.durable.secret, bytes(body[0])) if body else None
        if found is None:
            self.completion.fail(request, spec.BAD_REQUEST, NO_ID, now)
        elif not found:
            self.completion.fail(request, spec.NOT_FOUND, NO_SUCH_ID, now)
        return found or 0

    def _owns(self, request: AcceptedRequest, job: DurableRequest) -> bool:
        return not job.row.owner or job.row.owner == request.caller.user

    def _open(
        self, request: AcceptedRequest, number: int, now: float
    ) -> tuple[DurableRequest | None, bool]:
        """The open durable request of that number, and whether `request` was refused because it
        belongs to another owner."""
        job = self.durable.jobs.get(number)
        if job is not None and not self._owns(request, job):
            self.completion.fail(request, spec.NOT_FOUND, NO_SUCH_ID, now)
            return None, True
        return job, False

    # ── $durable ──────────────────────────────────────────────────────────────────────────────────

    def _result(self, request: AcceptedRequest, body: list[Frame], now: float) -> None:
        at_once = len(body) > 1 and bytes(body[1]) == b"0"
        number = self._number(request, body, now)
        if not number:
            return
        job, refused = self._open(request, number, now)
        if refused:
            return
        if job is None:
            self.durable.read(number, request, Wants.RESULT, now)
        elif at_once:
            text = "the request has no outcome yet"
            self.completion.fail(request, spec.DEADLINE_EXCEEDED, text, now)
        else:
            self.durable.let_wait(request)
            job.wait(request, Wants.RESULT)

    def _withdraw(self, request: AcceptedRequest, body: list[Frame], now: float) -> None:
        number = self._number(request, body, now)
        if not number:
            return
        job, refused = self._open(request, number, now)
        if refused:
            return
        if job is None:
            self.durable.read(number, request, Wants.WITHDRAWN, now)
        elif job.state is ENDING:
            self.completion.fail(request, spec.CONFLICT, ENDED_ALREADY, now)
        else:
            self.durable.withdraw(job, request, Wants.DONE, True, now)

    def _forget(self, request: AcceptedRequest, body: list[Frame], now: float) -> None:
        number = self._number(request, body, now)
        if not number:
            return
        job, refused = self._open(request, number, now)
        if refused:
            return
        if job is None:
            self.durable.read(number, request, Wants.DONE, now)
        else:
            self.completion.fail(request, spec.CONFLICT, NOT_ENDED, now)

    # ── RFC 9 ─────────────────────────────────────────────────────────────────────────────────────

    def _titanic_request(self, request: AcceptedRequest, body: list[Frame], now: float) -> None:
        """ "The client sends a request to titanic.request: service name, request body" (RFC 9)."""
        called = bytes(body[0]) if body else b""
        if is_reserved(called) or service_problem(called):
            self._titanic(request, [b"400"], now)
            return
        caller = request.caller
        refusal = self.authorization.refuses_call(caller, request.peer, called, body[1:])
        if refusal is not None:
            self._titanic(request, [b"403", refusal[1].encode()], now)
            return
        service = full_name(caller.prefix, called)
        if len(service) > spec.MAX_NAME:
            self._titanic(request, [b"400"], now)
            return
        problem = self.durable.problem(caller.user, body[1:], b"")
        if problem:
            self._titanic(request, [b"500", problem.encode()], now)
            return
        asked = options.Options(keep=self.durable.registry.settings.durable_keep)
        wants = Wants.TITANIC_ID
        self.durable.enter(request, service, called, body[1:], b"", asked, wants, now)

    def _titanic_reply(self, request: AcceptedRequest, body: list[Frame], now: float) -> None:
        found = ids.number_of(self.durable.secret, bytes(body[0])) if body else None
        job = self.durable.jobs.get(found) if found else None
        if not found or (job is not None and not self._owns(request, job)):
            self._titanic(request, [b"400"], now)
        elif job is not None:
            self._titanic(request, [b"300"], now)
        else:
            self.durable.read(found, request, Wants.TITANIC_REPLY, now)

    def _titanic_close(self, request: AcceptedRequest, body: list[Frame], now: float) -> None:
        """ "The Titanic service SHOULD treat the close as idempotent" (RFC 9)."""
        found = ids.number_of(self.durable.secret, bytes(body[0])) if body else None
        job = self.durable.jobs.get(found) if found else None
        if not found or (job is not None and not self._owns(request, job)):
            self._titanic(request, [b"200"], now)
        elif job is not None and job.state is not ENDING:
            self.durable.withdraw(job, request, Wants.TITANIC_DONE, False, now)
        else:
            self.durable.read(found, request, Wants.TITANIC_DONE, now)

    def _titanic(self, request: AcceptedRequest, frames: list[Frame], now: float) -> None:
        self.completion.answer(request, spec.OK, frames, 0, b"", now)

    # ── the management interface ──────────────────────────────────────────────────────────────────

    def _status(self, request: AcceptedRequest, body: list[Frame], now: float) -> None:
        frames = [b"200", msgspec.json.encode(report(self.durable, now))]
        self.completion.answer(request, spec.OK, frames, 0, b"", now)

    def _list(self, request: AcceptedRequest, body: list[Frame], now: float) -> None:
        """Rows in the order of their numbers. Frame 0: a service, or empty; frame 1: the cursor."""
        service = bytes(body[0]) if body else b""
        cursor = bytes(body[1]) if len(body) > 1 else b"0"
        if not cursor.isdigit() or len(cursor) > 19:
            self.completion.answer(request, spec.OK, [b"400"], 0, b"", now)
            return
        prefix = request.caller.prefix
        self.durable.let_wait(request)

        def listed(answer: Answer, at: float) -> None:
            if request.state not in OPEN or not isinstance(answer, list):
                return
            rows = [
                self._row(row, at)
                for row in answer
                if row.service.startswith(prefix) and service in (b"", row.called)
            ]
            frames = [b"200", msgspec.json.encode(rows)]
            if len(answer) == ROWS:
                frames.append(b"%d" % answer[-1].number)
            self.completion.answer(request, spec.OK, frames, 0, b"", at)

        self.durable.writes.add(Page(int(cursor), ROWS), listed)

    def _row(self, row: StoredRequest, now: float) -> dict[str, Any]:
        """One row of the list. The id of an anonymous request is a secret, and not shown."""
        job, wall = self.durable.jobs.get(row.number), now + self.durable.offset
        state = "ended"
        if job is not None:
            queued = job.run is not None and job.run.worker is None
            state = "waiting" if queued else job.state.name.lower()
        attempts = job.run.attempt if job is not None and job.run is not None else row.attempts
        id = ids.public_id(self.durable.secret, row.number).decode() if row.owner else ""
        return {
            "number": row.number,
            "id": id,
            "service": row.called.decode("utf-8", "replace"),
            "owner": row.owner,
            "key": row.key.decode("utf-8", "replace"),
            "state": state,
            "status": row.outcome.status if row.outcome is not None else 0,
            "attempts": attempts,
            "age": round(max(0.0, wall - row.accepted), 3),
        }


def report(durable: DurableRequests, now: float) -> dict[str, Any]:
    """The state of the durable requests and of their store, as `mmi.stats` reports it."""
    state, wall = durable.state, now + durable.offset
    oldest = next(iter(durable.jobs.values()), None)
    return {
        "store": durable.name,
        "rows": state.rows,
        "open": len(durable.jobs),
        "running": durable.backlog.placed,
        "unstored": durable.writes.unstored,
        "bytes": state.bytes,
        "free": state.free,
        "accepts": state.accepts,
        "oldest": round(max(0.0, wall - oldest.row.accepted), 3) if oldest is not None else 0.0,
    }
