"""Durable requests: what is stored, what waits for the store, and the policy of attempts.

A durable request is accepted, written, run, answered and written again. A run of it is an ordinary
request of the broker itself; each client that waits for it is an ordinary request in state STORED.

records: rows, outcomes and operations, as a store gets them.
installed: has the machine a store at all?
options: what the metadata of a DURABLE request mean, and which are refused.
ids: the public id of a durable request.
policy: which outcomes are tried again, when, and how often.
requests: one durable request in memory, and the owner that its runs belong to.
writes: numbered writes, and what follows when one is stored.
backlog: which of the waiting durable requests of a service are placed next.
lifecycle: a durable request from its acceptance to its end; recovery after a start.
commands: the services `$durable.…` and `titanic.…`.
"""
