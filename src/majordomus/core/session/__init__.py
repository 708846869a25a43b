"""What the machines of clients and workers share.

machine: the contract of both machines
connection: the state of a connection, heartbeats, silence, WELCOME and DISCONNECT
events: subscriptions, and events that are sent and received
login: when a token is requested and renewed
outbox: messages in order, also when the socket refuses some
timers: a queue of timers, most of them in ascending order
backoff: growing random delays
home: a client's own order of its brokers, and its return to the first
limits: the sizes that a broker has announced
transitions: the tables of states
settings: settings of client and worker sessions, and constants of both
"""
