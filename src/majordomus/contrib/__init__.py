"""Applications on the public API. Only the command-line interface imports them.

otel: OpenTelemetry for clients, brokers and workers.
cloudlog: a logging handler, a collector of log entries, and live watches.
titanic: RFC 9 as a worker, for a broker without a store.
"""
