"""The rules of majordomus, as three state machines without I/O, clock or randomness of their own.

session: what the machines of clients and workers share
client: the client's machine
worker: the worker's machine
broker: the broker's machine

The machines do not import each other. docs/rules.md lists their rules.
"""
