"""How a program declares what a worker does.

services: the decorators of `Worker`, `AsyncWorker` and `Router`.
router: services, events and hooks of a file, which a worker includes.
lifespan: functions at the start and the end of a run, and values that live as long.
dependencies: arguments of handlers that other functions make.
middleware: code around handlers.
"""
