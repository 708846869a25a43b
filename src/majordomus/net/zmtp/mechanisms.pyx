# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Security mechanisms of ZMTP 3.1 (RFC 37): the bytes of their commands. No I/O.

The engine reads and writes greetings and frames; what a command of the handshake means is decided
here. The only mechanism is NULL: each peer sends READY, or ERROR.
"""

MALFORMED = "malformed"
REFUSED = "refused "
"""The start of a reason; the status code follows."""

NULL_NAME = b"NULL".ljust(20, b"\0")
"""The mechanism's name as the greeting holds it."""
GREETING_REST = b"\x01" + NULL_NAME + bytes(32)
"""Our greeting after the major version: minor version, mechanism, as-server, filler."""

cdef int COMMAND_FLAG = 0x04


def ready(bytes kind not None, bytes identity=b""):
    """Return the frame of a READY command for this socket type and identity."""
    body = b"\x05READY\x0bSocket-Type" + len(kind).to_bytes(4) + kind
    body += b"\x08Identity" + len(identity).to_bytes(4) + identity
    return bytes([COMMAND_FLAG, len(body)]) + body


def read_properties(bytes body not None):
    """Return (identity, socket type) of a READY command; None for any other command."""
    cdef Py_ssize_t at = 6, size = len(body), name_size, value_size
    cdef bytes name, peer = b"", kind = b""
    if body[:6] != b"\x05READY":
        return None
    while at < size:
        name_size = body[at]
        if at + 1 + name_size + 4 > size:
            return None
        name = body[at + 1 : at + 1 + name_size].lower()  # RFC 37: "names are case-insensitive"
        at += 1 + name_size
        value_size = int.from_bytes(body[at : at + 4])
        at += 4
        if at + value_size > size:
            return None
        if name == b"identity":
            peer = body[at : at + value_size]
        elif name == b"socket-type":
            kind = body[at : at + value_size]
        at += value_size
    return peer, kind


def refusal(bytes body not None):
    """Return the reason of a handshake that ended with this command instead of READY.

    RFC 37: "error = command-size %d5 'ERROR' error-reason"; libzmq sends the status code of RFC 27
    as the reason.
    """
    cdef bytes reason = body[7:]
    if body[:6] != b"\x05ERROR":
        return MALFORMED
    return f"{REFUSED}{reason.decode('ascii')}" if reason.isdigit() else f"{REFUSED}400"
