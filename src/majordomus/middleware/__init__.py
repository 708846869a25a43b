"""Hooks that any broker can use, and middleware for clients and workers (`calls`):
``Broker(middleware=[RateLimit(100), RequestLog()])``.

calls: middleware of clients and workers: Retry, Timeout, Log and Cache.
circuit_breaker: refuses requests to a service that keeps failing.
log_ids: the ids of requests in the lines that handlers log.
rate_limit: limits the requests per second of each client or user.
request_log: logs each request when it has ended.
shadow: copies a share of the requests to another service.
size_limit: limits the size of bodies by service.
token_auth: logins and tokens.
"""

from __future__ import annotations

from majordomus.middleware.circuit_breaker import CircuitBreaker
from majordomus.middleware.log_ids import LogIds
from majordomus.middleware.rate_limit import RateLimit
from majordomus.middleware.request_log import RequestLog
from majordomus.middleware.shadow import Shadow
from majordomus.middleware.size_limit import SizeLimit
from majordomus.middleware.token_auth import TokenAuth
from majordomus.net.log_lines import RequestIds

__all__ = [
    "CircuitBreaker",
    "LogIds",
    "RateLimit",
    "RequestIds",
    "RequestLog",
    "Shadow",
    "SizeLimit",
    "TokenAuth",
]
