"""Applications on the public API. Only the command-line interface imports them.

cloudlog: a logging handler, a collector of log entries, and live watches.
"""
