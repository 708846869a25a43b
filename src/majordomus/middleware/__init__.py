"""Hooks that any broker can use: ``Broker(middleware=[RateLimit(100), RequestLog()])``.

One small class a file. Each may be limited to some services, and takes its clock as an argument.
"""

from __future__ import annotations

from majordomus.middleware.circuit_breaker import CircuitBreaker
from majordomus.middleware.rate_limit import RateLimit
from majordomus.middleware.request_log import RequestLog
from majordomus.middleware.shadow import Shadow
from majordomus.middleware.size_limit import SizeLimit
from majordomus.middleware.token_auth import TokenAuth

__all__ = ["CircuitBreaker", "RateLimit", "RequestLog", "Shadow", "SizeLimit", "TokenAuth"]
