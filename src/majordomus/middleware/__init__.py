"""Hooks that any broker can use: ``Broker(middleware=[RateLimit(100), RequestLog()])``.

circuit_breaker: refuses requests to a service that keeps failing.
rate_limit: limits the requests per second of each client or user.
request_log: logs each request when it has ended.
shadow: copies a share of the requests to another service.
size_limit: limits the size of bodies by service.
token_auth: logins and tokens.
"""

from __future__ import annotations

from majordomus.middleware.circuit_breaker import CircuitBreaker
from majordomus.middleware.rate_limit import RateLimit
from majordomus.middleware.request_log import RequestLog
from majordomus.middleware.shadow import Shadow
from majordomus.middleware.size_limit import SizeLimit
from majordomus.middleware.token_auth import TokenAuth

__all__ = ["CircuitBreaker", "RateLimit", "RequestLog", "Shadow", "SizeLimit", "TokenAuth"]
