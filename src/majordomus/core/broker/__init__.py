"""The broker's machine: every rule of a broker, without a socket, a clock or a thread.

contract: what the program around the machine may use, as a Protocol.
machine: the contract with the shell, and which rule a message is subject to.
admission: what a request must pass before it is accepted (rules 4 and 11), hedges included.
queueing: a request waits; the choice of a worker and of the next request (rules 3, 6 and 7).
dispatch: a request takes a slot of a worker, and the slot comes back (rule 2).
completion: a request gets exactly one outcome, and its client the answer (rules 1 and 5).
retries: which requests of a lost worker are tried again (rule 3).
streams: credit and parts of both directions of a conversation.
registration: a worker's claim to a service is checked and entered.
presence: new and forgotten peers, heartbeats, silence, lost connections (rules 8, 9 and 10).
pubsub: events, subscriptions and sessions.
outgoing: sends with their tags, and the outbox of a peer whose socket is full (rule 9).
encoding: messages to peers, in the dialect of each.
error_texts: texts of a 503 that name services.
authorization: what a user may do, and what follows when the access rules change.
internal_calls: requests that the broker makes itself.
mmi: answers to the services `mmi.…`.
snapshot: the answer to `mmi.metrics`.
ended: the answer to `mmi.ended`.
pages: lists of the management interface, page by page.
contracts: asks workers for their contracts, and compares those of one name.
explain: the answer to `mmi.explain`.
settings: the settings of a broker, and which of them a running broker can change.
invariants: what must be true between any two calls; tests alone use it.

durable: what is stored, what waits for the store, and the policy of attempts.
commands: what a message of each dialect means.
hooks: what the embedding program decides about requests, replies and clients.
state: entities and tables, without a rule.
balancing: strategies that choose a worker.
accel: what is there for the processor's caches and the compiler alone.
"""
