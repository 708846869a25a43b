"""Everything that uses libzmq: the portable wire, inproc, and the proxies.

key_pairs: makes and checks CURVE key pairs
sockets: makes sockets; every option of a socket is set there
wire: receives and sends batches of messages, on pyzmq
_native: the same on libzmq itself, compiled
select: which wire is used
monitor: events of a socket's connections
pump: moves messages from one socket to another
proxy: a proxy that can be paused, resumed and ended
"""
