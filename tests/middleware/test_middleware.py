"""Each middleware by itself, on a clock of the test's."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from majordomus.core.broker.hooks.actions import Reject
from majordomus.errors import ConfigurationError
from majordomus.middleware import CircuitBreaker, RateLimit, RequestLog, Shadow, SizeLimit


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def request(service: str = "echo", client: bytes = b"c", user: str = "", size: int = 0) -> Any:
    return SimpleNamespace(service=service, client=client, user=user, size=size, frames=[b"x"])


def outcome(service: str = "echo", what: str = "answered", status: int = 200, **more: Any) -> Any:
    told = {"attempts": 1, "client": b"\x0c", "user": "", "worker": b"\x0e", "accepted": 99.5}
    told |= {
        "id": "0c-1",
        "trace": "",
        "service": service,
        "served_as": service,
        "outcome": what,
        "status": status,
    }
    return SimpleNamespace(**(told | more))


def refused(hook: Any, request: Any) -> Reject | None:
    found = hook.on_request(request)
    assert found is None or isinstance(found, Reject)
    return found


class TestRateLimit:
    def test_bucket_is_emptied_at_once_and_filled_by_time(self) -> None:
        clock = Clock()
        limit = RateLimit(2, burst=3, clock=clock)
        assert [refused(limit, request()) is None for _ in range(4)] == [True] * 3 + [False]
        clock.now += 0.5
        assert refused(limit, request()) is None
        assert refused(limit, request()) == Reject(
            429, "more than 2 requests a second; try again in 0.5 s"
        )
        clock.now += 1000
        assert [refused(limit, request()) is None for _ in range(4)] == [True] * 3 + [False]

    def test_each_client_has_its_own(self) -> None:
        limit = RateLimit(1, clock=Clock())
        assert refused(limit, request(client=b"1")) is None
        assert refused(limit, request(client=b"1")) is not None
        assert refused(limit, request(client=b"2")) is None

    def test_user_has_one_for_all_its_clients(self) -> None:
        limit = RateLimit(1, by="user", clock=Clock())
        assert refused(limit, request(client=b"1", user="ada")) is None
        assert refused(limit, request(client=b"2", user="ada")) is not None
        assert refused(limit, request(client=b"3")) is None
        assert refused(limit, request(client=b"4")) is None

    def test_other_services_are_not_counted(self) -> None:
        limit = RateLimit(1, services={"echo"}, clock=Clock())
        assert all(refused(limit, request("free")) is None for _ in range(5))
        assert refused(limit, request()) is None
        assert refused(limit, request()) is not None

    def test_number_of_buckets_is_bounded(self) -> None:
        limit = RateLimit(1, most=10, clock=Clock())
        for n in range(100):
            refused(limit, request(client=b"%d" % n))
        assert len(limit._buckets) == 10
        assert refused(limit, request(client=b"99")) is not None

    @pytest.mark.parametrize("options", [{"rate": 0}, {"rate": 1, "by": "moon"}])
    def test_what_makes_no_sense_is_an_error(self, options: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError, match="rate above 0"):
            RateLimit(**options)


class TestRequestLog:
    def lines(self, caplog: pytest.LogCaptureFixture, log: RequestLog, ended: Any) -> list[Any]:
        caplog.clear()
        with caplog.at_level(logging.INFO, "majordomus.requests"):
            log.on_request_ended(ended)
        return [(record.levelname, record.getMessage()) for record in caplog.records]

    def test_line_says_what_became_of_a_request(self, caplog: pytest.LogCaptureFixture) -> None:
        log = RequestLog(clock=Clock())
        line = (
            "request id=0c-1 service=echo outcome=answered status=200 seconds=0.500 client=0c "
            "worker=0e attempts=1"
        )
        assert self.lines(caplog, log, outcome()) == [("INFO", line)]
        ended = outcome("login", "failed", 401, served_as="auth", user="ada", worker=b"")
        line = (
            "request id=0c-1 service=login served_as=auth outcome=failed status=401 seconds=0.500 "
            "client=0c user=ada"
        )
        assert self.lines(caplog, log, ended) == [("WARNING", line)]
        ((_, line),) = self.lines(caplog, log, outcome(trace="abc"))
        assert line.endswith(" trace=abc")

    def test_slow_ones_are_warned_of(self, caplog: pytest.LogCaptureFixture) -> None:
        assert self.lines(caplog, RequestLog(slow=0.4, clock=Clock()), outcome())[0][0] == "WARNING"
        assert self.lines(caplog, RequestLog(slow=0.6, clock=Clock()), outcome())[0][0] == "INFO"

    def test_other_services_and_levels_are_left_out(self, caplog: pytest.LogCaptureFixture) -> None:
        assert self.lines(caplog, RequestLog(services=("x",), clock=Clock()), outcome()) == []
        with caplog.at_level(logging.ERROR, "majordomus.requests"):
            RequestLog(clock=Clock()).on_request_ended(outcome())
        assert caplog.records == []

    def test_line_is_one_line_whatever_a_client_calls_its_service(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        ((_, line),) = self.lines(caplog, RequestLog(clock=Clock()), outcome("a\nb"))
        assert line.startswith("request id=0c-1 service=a\\nb ")


class TestSizeLimit:
    def test_larger_requests_are_refused(self) -> None:
        limit = SizeLimit(10, services={"upload": 100})
        assert refused(limit, request(size=10)) is None
        assert refused(limit, request(size=11)) == Reject(
            413, "a request for 'echo' has 11 bytes; at most 10 are allowed"
        )
        assert refused(limit, request("upload", size=100)) is None
        assert refused(limit, request("upload", size=101)) is not None

    def test_replies_have_a_limit_of_their_own(self) -> None:
        reply: Any = SimpleNamespace(service="echo", size=11)
        assert SizeLimit(1).on_reply(reply) is None
        assert SizeLimit(replies=10).on_reply(reply) == Reject(
            413, "the answer of 'echo' has 11 bytes; at most 10 are allowed"
        )
        assert refused(SizeLimit(replies=10), request(size=1000)) is None


class TestShadow:
    def test_share_of_the_requests_is_copied(self) -> None:
        sent: list[Any] = []
        rolls = iter((0.0, 0.29, 0.3, 0.99))
        shadow = Shadow("echo", "echo-next", 0.3, dice=lambda: next(rolls))
        shadow.attach(SimpleNamespace(send=lambda *copy: sent.append(copy)))  # type: ignore[arg-type]
        for _ in range(4):
            shadow.on_request(request())
        shadow.on_request(request("other"))
        assert sent == [("echo-next", [b"x"])] * 2

    @pytest.mark.parametrize(("to", "share"), [("b", 1.1), ("b", -0.1), ("a", 1.0)])
    def test_what_makes_no_sense_is_an_error(self, to: str, share: float) -> None:
        with pytest.raises(ConfigurationError):
            Shadow("a", to, share)


class TestCircuitBreaker:
    def fail(self, breaker: CircuitBreaker, times: int = 1, status: int = 500) -> None:
        for _ in range(times):
            breaker.on_request_ended(outcome(what="failed", status=status))

    def test_opens_after_failures_in_a_row_and_tries_again(self) -> None:
        clock = Clock()
        breaker = CircuitBreaker(3, rest=10, clock=clock)
        self.fail(breaker, 2)
        breaker.on_request_ended(outcome())
        self.fail(breaker, 2)
        assert refused(breaker, request()) is None
        self.fail(breaker)
        clock.now += 4
        assert refused(breaker, request()) == Reject(
            503, "'echo' has failed too often; try again in 6 s"
        )
        assert refused(breaker, request("other")) is None
        clock.now += 6
        assert refused(breaker, request()) is None
        assert refused(breaker, request()) is not None
        self.fail(breaker)
        clock.now += 10
        assert refused(breaker, request()) is None
        breaker.on_request_ended(outcome())
        assert [refused(breaker, request()) for _ in range(3)] == [None] * 3

    def test_what_no_worker_had_and_what_the_handler_meant_do_not_count(self) -> None:
        breaker = CircuitBreaker(1, clock=Clock())
        breaker.on_request_ended(outcome(what="failed", status=503, attempts=0))
        breaker.on_request_ended(outcome(what="expired", status=503, attempts=0))
        self.fail(breaker, status=404)
        breaker.on_request_ended(outcome(what="cancelled", status=499))
        assert refused(breaker, request()) is None

    @pytest.mark.parametrize(("what", "status"), [("expired", 408), ("failed", 502)])
    def test_lost_workers_and_deadlines_count(self, what: str, status: int) -> None:
        breaker = CircuitBreaker(1, clock=Clock())
        breaker.on_request_ended(outcome(what=what, status=status))
        assert refused(breaker, request()) is not None

    def test_other_services_are_left_alone(self) -> None:
        breaker = CircuitBreaker(1, services={"x"}, clock=Clock())
        self.fail(breaker)
        assert refused(breaker, request()) is None
