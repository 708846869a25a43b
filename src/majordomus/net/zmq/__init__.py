"""Everything that uses libzmq: the portable wire, inproc, and the proxies.

key_pairs: makes and checks CURVE key pairs
sockets: makes sockets; every option of a socket is set there
wire: receives and sends batches of messages, on pyzmq
select: whether our own ZMTP or libzmq serves TCP and ipc
monitor: events of a socket's connections
pump: moves messages from one socket to another
_pump: the same on libzmq itself, compiled
proxy: a proxy that can be paused, resumed and ended
"""
