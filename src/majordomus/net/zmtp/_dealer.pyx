# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""One connection of our own ZMTP, as a DEALER; see wire.py, whose interface this is."""

from majordomus.net.zmtp._engine import (
    BROKEN_OFF,
    GONE_AWAY,
    MALFORMED,
    NEW,
    TURNED_AWAY,
    UNREACHED,
    ready,
)

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINPROGRESS, EINTR, errno
from libc.string cimport memcmp, memset
from majordomus.net.zmtp._posix cimport (
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
from majordomus.net.zmtp._stream cimport CONNECTING, ENDED, OPEN, ByteStream
from majordomus.net.zmtp._engine cimport BROUGHT, EARLY, SCRATCH, Engine

cdef enum:
    DEALER_TYPE = 5  # ZMTP/2.0 (RFC 15): a socket's type is a number


cdef class TcpDealer(Engine):
    """What a DEALER with one connection and IMMEDIATE is: `fd` is of a socket that does not block
    and is being connected; it is closed with this. `hwm` messages wait at most.

    It belongs to one thread at a time. Whenever `self.fd` is readable, `receive` has something to do.
    """

    cdef ByteStream stream
    cdef int hwm, extra

    def __init__(self, int fd, bytes identity not None, *, int hwm=1000):
        self.hwm, self.extra = hwm, -1
        self.introduction = ready(b"DEALER", identity)
        self.old_introduction = bytes([DEALER_TYPE, 0, len(identity)]) + identity
        self.watch(fd, EPOLL_CTL_ADD, False, True)
        self.stream = ByteStream(fd, 0.0)  # from here on the descriptor is ours
        self.stream.state = CONNECTING
        self.stream.peer = identity

    @property
    def open(self):
        """Whether the handshake is done and the end has not come."""
        return self.stream.state == OPEN

    def wait_with(self, int extra):
        """What waits for this and for the descriptor `extra`, in milliseconds: 1 when `extra` is
        readable, 2 when `receive` has something to do, 3 for both; 0 after the time, or when a
        signal was handled."""
        self.watch(extra, EPOLL_CTL_ADD, True, False)
        self.extra = extra
        return self._wait

    def _wait(self, int milliseconds):
        cdef epoll_event[2] events
        cdef int found, n, number, mask = 0
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
        """Up to `most` messages that are there now; fewer mean that there are no more, or only very
        large ones. `news` tells what else came of it."""
        cdef list batch = []
        cdef ByteStream stream = self.stream
        self.brought = 0
        if stream.state == CONNECTING and not self.connected():
            return batch
        if stream.asks_to_write:
            self.flush(stream)
        while stream.state != ENDED and len(batch) < most:
            self.visit(stream, batch, most)
            if not (stream.waiting or stream.more) or self.brought >= BROUGHT:
                break
        return batch

    @property
    def waiting(self):
        """Whether messages have been read that no batch had room for."""
        return self.stream.waiting

    cdef bint connected(self) except -1:
        cdef int number = 0
        cdef socklen_t size = sizeof(number)
        if getsockopt(self.stream.fd, SOL_SOCKET, SO_ERROR, &number, &size) != 0:
            number = errno
        if number == EINPROGRESS or (number == 0 and not _has_other_end(self.stream.fd)):
            return False
        if number != 0 or _meets_itself(self.stream.fd):
            self.end(self.stream, UNREACHED)
            return False
        self.watch(self.stream.fd, EPOLL_CTL_MOD, True, False)
        self.told.append((NEW, self.stream.fd, None, ""))
        self.begin(self.stream)
        return True

    def send(self, list batch not None):
        """As `wire.DealerWire.send`."""
        cdef ByteStream stream = self.stream
        cdef Py_ssize_t n, total = len(batch)
        cdef list refused = []
        for n in range(total):
            if stream.state != OPEN or stream.deaf or self.is_full():
                if n:
                    self.flush(stream)
                return [(later, EAGAIN) for later in range(n, total)]
            stream.put_message(batch[n])
            if stream.unsent() > EARLY and not stream.asks_to_write:
                self.flush(stream)
        if not stream.asks_to_write:
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
        """Bytes that the kernel has not taken yet."""
        return self.stream.unsent()

    def expire(self):
        """It has taken too long, if it is not open yet."""
        if self.stream.state < OPEN:
            self.end(self.stream, UNREACHED if self.stream.state == CONNECTING else BROKEN_OFF)

    def write(self):
        """Tries to write what waits."""
        self.flush(self.stream)

    def close(self):
        """May be repeated. What comes after this is not read: without reading it away first, the
        kernel would tell the other end to forget what was sent."""
        if self.stream.state == OPEN and not self.abandoned:
            self.flush(self.stream)
            shutdown(self.stream.fd, SHUT_WR)
            while recv(self.stream.fd, self.scratch, SCRATCH, MSG_DONTWAIT) > 0:
                pass
        self.end(self.stream, "")
        self.told.clear()

    cdef int deliver(self, ByteStream stream, list frames, list batch) except -1:
        batch.append(frames)
        return 0

    cdef str opened(self, ByteStream stream, bytes peer, bytes kind):
        return None if kind in (b"", b"REP", b"DEALER", b"ROUTER") else MALFORMED

    cdef int ended(self, ByteStream stream, str why) except -1:
        self.told.append(
            (TURNED_AWAY if stream.state != OPEN else GONE_AWAY, stream.fd, None, why)
        )
        return 0


cdef bint _has_other_end(int fd) noexcept:
    """Whether a connection is there, and not only asked for."""
    cdef sockaddr_storage there
    cdef socklen_t size = sizeof(there)
    return getpeername(fd, <sockaddr*>&there, &size) == 0


cdef bint _meets_itself(int fd) noexcept:
    """Whether a connection has itself at its other end.

    Who tries often enough to reach a port of this machine where nobody listens, out of the range
    for outgoing connections, is given that port itself one day. It would hear itself, and keep the
    port from its broker.
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
