"""Sockets, threads, event loops and clocks: everything that drives the state machines of core.

bodies: bodies of calls and replies, and their frames.
deadline: the deadline of the request that is being handled now.
endpoints: URLs and dialects: checks and their errors.
events: distributes events to subscriptions and handlers.
forks: counts the forks of this process.
log_lines: log lines without control characters.
gate: waits between threads that an exception cannot break.
readiness: waits for several descriptors at once.
version: the version of this package.
waker: a descriptor that ends the wait of another thread.

broker: the broker's loop, listeners, security and limits.
client: the sync and the asyncio client.
connection: the connection of a client's or worker's session to its broker.
typed: bodies and annotations: what clients and workers share of them.
worker: the sync and the asyncio worker.
zmq: everything that touches libzmq.
zmtp: our own implementation of ZMTP.
"""
