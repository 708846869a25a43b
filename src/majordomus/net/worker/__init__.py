"""Workers: services with handlers, registered at one or several brokers.

worker: `Worker`, in the caller's thread or its own
async_worker: `AsyncWorker`, on the running event loop
base: what both have in common: arguments, the table of services
run: one run of the engine: start, signals, drain, stop
broker_log: the log of a worker's connections: one line for each change of state
engine: registrations at brokers, their services and capacity
serving: the path of a request from its dispatch to its outcome
handlers: the four shapes of handlers
typed: handlers with annotations: bodies decoded and results encoded
outcomes: what a handler's result or exception becomes
request: a request as its handler sees it
deferred_reply: replies that are given after the handler has returned
parts: the parts of a client's stream
flow: flow control of a reply's parts
events: pushes, publishes and subscriptions of a worker
stalls: how long the loop was not run, and which handlers ran meanwhile
load: the machine's load, for heartbeats
thread_pool: threads for handlers that block
eager_tasks: tasks whose first step runs at once
eager_steps: the first step of a coroutine, with a twin in C
declare: what a program declares: services, dependencies, middleware
processes: handlers in processes of their own
"""
