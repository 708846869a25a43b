# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""One connection of our own ZMTP, with the interface of a DEALER (`net/zmq/wire.py`)."""

from majordomus.net.zmtp.engine import (
    BROKEN_OFF,
    CONNECTION_ENDED,
    CONNECTION_OPENED,
    HANDSHAKE_FAILED,
    MALFORMED,
    UNREACHED,
)
from majordomus.net.zmtp.mechanisms import Null

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINPROGRESS, EINTR, errno
from libc.string cimport memcmp, memset
from majordomus.net.zmtp.posix cimport (
    EPOLL_CTL_ADD,
    EPOLL_CTL_MOD,
    MSG_DONTWAIT,
    SHUT_WR,
    SO_ERROR,
    SOL_SOCKET,
    epoll_event,
    epoll_wait,
    getpeername,
    getsockname,
    getsockopt,
    recv,
    shutdown,
    sockaddr,
    sockaddr_storage,
    socklen_t,
)
from majordomus.net.zmtp.mechanisms cimport Mechanism
from majordomus.net.zmtp.stream cimport CONNECTING, ENDED, OPEN, ByteStream
from majordomus.net.zmtp.engine cimport FRAME_COST, FLUSH_AT, MAX_READ, READ_BUFFER, Engine

cdef enum:
    DEALER_TYPE = 5  # ZMTP/2.0 (RFC 15): a socket's type is a number

cdef bytes PING = b"\x04PING\0\0"


cdef class TcpDealer(Engine):
    """A DEALER with one connection, and IMMEDIATE: nothing is queued before it is open.

    The argument `fd` is a non-blocking socket that is being connected; the dealer owns it from then
    on. `hwm`: messages that may wait. `mechanism` is that of the connection, by default NULL.
    `truncated` counts received messages of which a `Cut` stands for the rest, because they exceed
    the `bound`. It belongs to one thread at a time. Whenever the property `fd` is readable,
    `receive` has work.
    """

    cdef ByteStream stream
    cdef Mechanism mechanism  # None once the handshake has begun
    cdef int hwm, extra
    cdef readonly size_t received  # bytes that came
    cdef readonly bint answers_ping  # the peer speaks ZMTP 3, whose PING it has to answer
    cdef readonly int connect_error  # the errno of an attempt that has failed, or 0

    def __init__(
        self, int fd, bytes identity not None, *, int hwm=1000, Mechanism mechanism=None
    ):
        self.hwm, self.extra = hwm, -1
        self.mechanism = Null(b"DEALER", identity) if mechanism is None else mechanism
        self.set_mechanism(self.mechanism.name, self.mechanism.as_server)
        self.zmtp2_ready = bytes([DEALER_TYPE, 0, len(identity)]) + identity
        self.watch(fd, EPOLL_CTL_ADD, False, True)
        self.stream = ByteStream(fd, 0.0)  # owns the descriptor from here on
        self.stream.state = CONNECTING
        self.stream.peer = identity

    @property
    def open(self):
        """Whether the handshake is done and the connection has not ended."""
        return self.stream.state == OPEN

    def wait_with(self, int extra):
        """Return a function that waits for work and for the descriptor `extra`, in milliseconds.

        Its result is 1 when `extra` is readable, 2 when `receive` has work, 3 for both; 0 after the
        time, or when a signal was handled.

        Handlers of signals run here, before and after the wait: a caller that is compiled too runs
        no bytecode between two waits.
        """
        self.watch(extra, EPOLL_CTL_ADD, True, False)
        self.extra = extra
        return self._wait

    def _wait(self, int milliseconds):
        cdef epoll_event[2] events
        cdef int found, n, number, mask = 0
        PyErr_CheckSignals()
        with nogil:
            found = epoll_wait(self.epoll, events, 2, milliseconds)
        if found < 0:
            number = errno
            if number != EINTR:
                raise OSError(number, "epoll_wait")
        PyErr_CheckSignals()
        for n in range(found):
            mask |= 1 if events[n].data.fd == self.extra else 2
        return mask

    def receive(self, Py_ssize_t most):
        """Return up to `most` messages; fewer mean that no more, or only large ones, have arrived.

        `events` has what else has happened to the connection.
        """
        cdef list batch = []
        cdef ByteStream stream = self.stream
        self.bytes_read = 0
        if stream.state == CONNECTING and not self.connected():
            return batch
        if stream.write_watched:
            self.flush(stream)
        while stream.state != ENDED and len(batch) < most:
            self.run_turn(stream, batch, most)
            if not (stream.unparsed or stream.readable) or self.bytes_read >= MAX_READ:
                break
        self.received += self.bytes_read
        return batch

    def bound(self, size_t most):
        """Keep at most `most` bytes of one message from now on; each frame counts as 64 more. Of the
        rest four times as much is dropped; beyond that the connection is ended. 0 is no bound."""
        self.max_bytes, self.max_dropped = most, 4 * most
        self.frame_cost = FRAME_COST if most else 0

    @property
    def waiting(self):
        """Whether messages have been read for which no batch had a place."""
        return self.stream.unparsed

    cdef bint connected(self) except -1:
        """Return whether the kernel has a connection; begin the handshake when it has."""
        cdef int number = 0
        cdef socklen_t size = sizeof(number)
        if getsockopt(self.stream.fd, SOL_SOCKET, SO_ERROR, &number, &size) != 0:
            number = errno
        if number == EINPROGRESS or (number == 0 and not _is_connected(self.stream.fd)):
            return False
        if number != 0 or _is_self_connected(self.stream.fd):
            self.connect_error = number
            self.end(self.stream, UNREACHED)
            return False
        self.watch(self.stream.fd, EPOLL_CTL_MOD, True, False)
        self.reported.append((CONNECTION_OPENED, self.stream.fd, None, ""))
        self.begin_handshake(self.stream)
        return True

    def send(self, list batch not None):
        """Send a batch, as `DealerWire.send` does: from the first refusal on all are refused."""
        cdef ByteStream stream = self.stream
        cdef Py_ssize_t n, total = len(batch)
        cdef list refused = []
        for n in range(total):
            if stream.state != OPEN or stream.write_failed or self.is_full():
                if n:
                    self.flush(stream)
                return [(later, EAGAIN) for later in range(n, total)]
            stream.put_message(batch[n])
            if stream.unsent() > FLUSH_AT and not stream.write_watched:
                self.flush(stream)
        if not stream.write_watched:
            self.flush(stream)
        return refused

    cdef bint is_full(self) except -1:
        cdef ByteStream stream = self.stream
        if stream.messages() < self.hwm:
            return False
        self.flush(stream)
        return stream.messages() >= self.hwm

    @property
    def unsent(self):
        """Unsent bytes."""
        return self.stream.unsent()

    def expire(self):
        """End the connection if it is not open yet: its time is over."""
        if self.stream.state < OPEN:
            self.end(self.stream, UNREACHED if self.stream.state == CONNECTING else BROKEN_OFF)

    def ping(self):
        """Send a PING. RFC 37: "the peer SHALL respond with PONG". Its ttl of 0 asks for nothing
        else. To be used only where `answers_ping` is true."""
        if self.stream.state == OPEN:
            self.stream.put_command(PING)
            if not self.stream.write_watched:
                self.flush(self.stream)

    def write(self):
        """Write what is unsent, as far as the kernel takes it."""
        self.flush(self.stream)

    def close(self):
        """Close the connection. May be repeated.

        Pending input is read and dropped first: a close with unread input resets the connection,
        and the kernel of the other end would then drop what was sent to it.
        """
        if self.stream.state == OPEN and not self.abandoned:
            self.flush(self.stream)
            shutdown(self.stream.fd, SHUT_WR)
            while recv(self.stream.fd, self.read_buffer, READ_BUFFER, MSG_DONTWAIT) > 0:
                pass
        self.end(self.stream, "")
        self.reported.clear()

    cdef int deliver(self, ByteStream stream, list frames, list batch) except -1:
        batch.append(frames)
        return 0

    cdef Mechanism make_mechanism(self):
        made, self.mechanism = self.mechanism, None
        return made

    cdef str accept_peer(self, ByteStream stream, bytes peer, bytes kind):
        self.answers_ping = kind != b""  # ZMTP/2.0 has no properties, and no commands
        return None if kind in (b"", b"REP", b"DEALER", b"ROUTER") else MALFORMED

    cdef int connection_ended(self, ByteStream stream, str why) except -1:
        self.reported.append(
            (HANDSHAKE_FAILED if stream.state != OPEN else CONNECTION_ENDED, stream.fd, None, why)
        )
        return 0


cdef bint _is_connected(int fd) noexcept:
    """Return whether a socket is connected, and not only connecting."""
    cdef sockaddr_storage there
    cdef socklen_t size = sizeof(there)
    return getpeername(fd, <sockaddr*>&there, &size) == 0


cdef bint _is_self_connected(int fd) noexcept:
    """Return whether a socket is connected to itself.

    A client that often connects to a local port without a listener, in the range of outgoing
    ports, is one day given that very port as its own (TCP simultaneous open). It would receive its
    own messages, and keep the port from its broker.
    """
    cdef sockaddr_storage here, there
    cdef socklen_t here_size = sizeof(here), there_size = sizeof(there)
    memset(&here, 0, sizeof(here))
    memset(&there, 0, sizeof(there))
    if getsockname(fd, <sockaddr*>&here, &here_size) != 0:
        return False
    if getpeername(fd, <sockaddr*>&there, &there_size) != 0:
        return False
    return here_size == there_size and memcmp(&here, &there, here_size) == 0
