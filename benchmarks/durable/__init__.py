"""Durable requests beside the queues of others: python -m benchmarks.durable.

A producer process and a worker process in Python, a server between them, 64 requests in flight, 100
bytes each way. Every system stores the request before it is delivered, and the result before the
producer gets it. Each one's client speaks the protocol in the fastest way that Python has, in
batches, without a client library; ours are AsyncClient and AsyncWorker.

systems: the servers: how each is started, and its setting that makes it durable.
timing: the requests in flight of a producer, their times, and the server's processor time.
ours: producer and worker of majordomus.
redis: of Redis streams.
amqp: of RabbitMQ's quorum queues.
jetstream: of NATS JetStream.
machine: whether the machine is quiet, and what a process and the disk have done.
beside: plain calls while durable ones are served.
report: the ratios, and whether each meets its target.
"""
