"""Connections of a session to its broker.

credentials: the keys, certificates and passwords of a client or worker; why a handshake failed.
link: the connection of one session, over one link after another.
async_link: the same on an asyncio event loop.
zmtp_link: a link of our own ZMTP over TCP.
zmq_link: a link of libzmq.
home_probe: probes the first broker of a client that is connected to another.
inline: event loops on which everything runs in one thread.
memory_link: a link to a TestBroker in the same thread.
resolving_link: takes the place of a link while the name of its host is resolved.
"""
