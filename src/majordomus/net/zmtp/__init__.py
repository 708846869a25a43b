"""Our own ZMTP 3.1 (RFC 37) over stream sockets and epoll, compiled; Linux only.

engine: reads and writes connections, parses frames, runs the handshake
stream: the buffers of one connection
router: many connections, with the interface of a ROUTER
dealer: one connection, with the interface of a DEALER
mechanisms: the handshakes of NULL, PLAIN and CURVE
boxes: the encrypted messages of one CURVE connection
sodium: the functions of libsodium
tcp: makes TCP sockets from endpoints
ipc: makes Unix sockets from endpoints
posix: declarations of the system calls
bytes_access: direct access to the memory of `bytes`

A further mechanism is a class in `mechanisms`; a further transport is a module beside `tcp`, since
engine, router and dealer know descriptors only.
"""
