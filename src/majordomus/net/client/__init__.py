"""Clients: calls, streams, conversations and events, for threads and for asyncio.

client: `Client`, the sync client.
async_client: `AsyncClient`, the asyncio client.
base: the session, the deadline and the options that both clients share.
calls: the open calls of a client, from their options to their outcomes.
call_runner: runs the calls of a sync client and waits for them in threads.
waiter: what a task waits for while a call is open.
async_call_runner: runs the calls of an asyncio client and waits for them in tasks.
driver: drives the connection of a sync client; one thread at a time owns the I/O.
streams: the parts of one answer, read one by one.
conversation: parts in both directions on one call.
gather: one request to every worker of a service.
hedge: a second attempt when the first answer takes long.
durable: options of durable calls, and the methods that take an id.
middleware: code around the calls of a client.
negotiation: encodings of typed calls, by the contract of the service.
typed: replies and parts as values of a type.
proxy: objects whose methods call services.
events: subscriptions, handlers of events, and publishing.
"""
