# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Many connections of our own ZMTP, as a ROUTER; see wire.py, whose interface this is."""

import collections

from majordomus.net.zmtp._engine import (
    BROKEN_OFF,
    GONE_AWAY,
    ID_IN_USE,
    MALFORMED,
    NEW,
    NOT_YET,
    TURNED_AWAY,
    UNFINISHED,
    ready,
)

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport (
    EAGAIN,
    ECONNABORTED,
    EHOSTUNREACH,
    EINTR,
    EMFILE,
    ENFILE,
    ENOBUFS,
    ENOMEM,
    errno,
)
from libc.stdint cimport uint32_t
from majordomus.net.zmtp._posix cimport (
    AF_INET,
    AF_INET6,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLLOUT,
    SHUT_RDWR,
    SHUT_WR,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    accept4,
    close,
    epoll_event,
    epoll_wait,
    inet_ntop,
    shutdown,
    sockaddr,
    sockaddr_in,
    sockaddr_in6,
    sockaddr_storage,
    socklen_t,
)
from majordomus.net.zmtp._stream cimport ENDED, OPEN, ByteStream
from majordomus.net.zmtp._engine cimport BROUGHT, EARLY, MAX_ID, Engine

cdef enum:
    ROUTER_TYPE = 6  # ZMTP/2.0 (RFC 15): a socket's type is a number
    SHARE = 32  # messages of one connection before the others have their turn
    EVENTS = 256
    TOGETHER = 48  # connections of one batch that are written to at once; there are buffers for them
    ACCEPTED_AT_ONCE = 64
    ENDED_AT_ONCE = 64


cdef class TcpRouter(Engine):
    """What a ROUTER with MANDATORY is, for connections that listening sockets bring.

    It belongs to one thread. `receive` and `send` are those of `wire.RouterWire`, and never wait; a
    peer is full when `hwm` messages or `max_unsent` bytes wait for it. Of one message no more than
    `max_frames` and `max_bytes` are kept, a `Cut` stands for the rest; a connection that brings
    more than `max_message` bytes for one is ended. When messages that are not complete hold more
    than `max_unfinished` bytes together, the connection that holds most of them is ended.
    `make_id(n)` makes n random bytes, for who brings no routing id. `extra` is a descriptor that
    `wait` watches beside them. A bound of 0 is none. `mark` is put in front of every routing id,
    to tell them apart from those of another socket.

    A routing id whose end `news` has told is nobody's until it is `release`d: who brings it
    meanwhile waits, unheard.
    """

    cdef list by_fd  # ByteStream at the index of its descriptor
    cdef dict by_peer
    cdef set listening
    cdef list arrivals  # listening sockets that have somebody
    cdef list queue  # streams whose turn comes, from `head` on
    cdef Py_ssize_t head
    cdef list later  # streams that wait for a routing id
    cdef set leaving  # routing ids whose ends are told and which are not released
    cdef object young  # those in the handshake, and some that have it done; oldest first
    cdef object make_id
    cdef bytes mark
    cdef int hwm, extra
    cdef size_t max_unsent, max_unfinished
    cdef epoll_event[EVENTS] events
    cdef bint fresh  # the kernel was asked since `receive` was here
    cdef bint crowded  # it may have had more to tell
    cdef double now
    cdef readonly int open_count
    cdef readonly bint exhausted
    """Whether no descriptor was left for one who came; `accept_again` ends it."""

    def __init__(
        self, make_id, *, int hwm=1000, size_t max_frames=0, size_t max_bytes=0,
        size_t max_message=0, size_t max_unsent=0, size_t max_unfinished=0, int extra=-1,
        bytes mark not None=b"",
    ):
        self.make_id, self.hwm, self.extra = make_id, hwm, extra
        self.max_frames, self.max_bytes, self.max_message = max_frames, max_bytes, max_message
        self.max_unsent, self.max_unfinished = max_unsent, max_unfinished
        self.introduction = ready(b"ROUTER")
        self.old_introduction = bytes([ROUTER_TYPE, 0, 0])
        self.by_fd, self.by_peer, self.listening = [], {}, set()
        self.queue, self.later, self.leaving, self.mark = [], [], set(), mark
        self.arrivals, self.young = [], collections.deque()
        if extra >= 0:
            self.watch(extra, EPOLL_CTL_ADD, True, False)

    def listen(self, int fd):
        """A bound and listening socket that does not block; somebody else's to close, after
        `unlisten`."""
        if not self.exhausted:
            self.watch(fd, EPOLL_CTL_ADD, True, False)
        self.listening.add(fd)

    def unlisten(self, int fd):
        if fd in self.listening:
            self.listening.discard(fd)
            if not self.exhausted:
                self.watch(fd, EPOLL_CTL_DEL, False, False)
        self.arrivals = [one for one in self.arrivals if one != fd]

    def accept_again(self):
        """After `exhausted`: tries again whether there are descriptors."""
        if self.exhausted:
            self.exhausted = False
            for fd in self.listening:
                self.watch(fd, EPOLL_CTL_ADD, True, False)

    def wait(self, int milliseconds):
        """1 when `extra` is readable, 2 when `receive` has something to do, 3 for both. It ends
        early, with 0, when a signal was handled."""
        cdef int found, number = 0
        if self.pending or self.arrivals:
            return 2
        if milliseconds == 0:
            found = epoll_wait(self.epoll, self.events, EVENTS, 0)
        else:
            with nogil:
                found = epoll_wait(self.epoll, self.events, EVENTS, milliseconds)
        if found < 0:
            number = errno
            if number != EINTR:
                raise OSError(number, "epoll_wait")
            PyErr_CheckSignals()
            return 0
        return self.note(found)

    @property
    def pending(self):
        """Whether there is more to receive of which `fd` need not tell."""
        return self.head < len(self.queue) or bool(self.later)

    cdef int note(self, int found) except -1:
        """What the kernel has told: who has a turn. The result is that of `wait`."""
        cdef int n, fd, mask = 0
        cdef uint32_t events
        cdef object one
        cdef ByteStream stream
        self.fresh, self.crowded = True, found == EVENTS
        for n in range(found):
            fd, events = self.events[n].data.fd, self.events[n].events
            if fd == self.extra:
                mask |= 1
                continue
            mask |= 2
            one = self.by_fd[fd] if fd < len(self.by_fd) else None
            if one is None:
                if fd in self.listening:
                    self.arrivals.append(fd)
                continue
            stream = <ByteStream>one
            if events & EPOLLOUT:
                self.flush(stream)
            if events & ~<uint32_t>EPOLLOUT and not stream.queued:
                stream.queued = True
                self.queue.append(stream)
        return mask

    def receive(self, Py_ssize_t most, double now):
        """Up to `most` messages that are there now; unless something is `pending`, there are no
        more. It also accepts, greets, and notices ends. Connections take turns, a share each."""
        cdef list batch = []
        cdef ByteStream stream
        cdef Py_ssize_t share
        self.now, self.brought = now, 0
        if self.later:
            self.queue += self.later
            self.later = []
        if not self.fresh:
            self.note(max(0, epoll_wait(self.epoll, self.events, EVENTS, 0)))
        self.fresh = False
        while len(batch) < most and self.brought < BROUGHT:
            if self.head == len(self.queue):
                if not self.crowded:
                    break
                self.note(max(0, epoll_wait(self.epoll, self.events, EVENTS, 0)))
                self.fresh = False
                if self.head == len(self.queue):
                    break
            stream = <ByteStream>self.queue[self.head]
            self.head += 1
            stream.queued = False
            if stream.state == ENDED:
                continue
            share = len(batch) + SHARE
            self.visit(stream, batch, share if share < most else most)
            if (stream.waiting or stream.more) and stream.state != ENDED and not stream.queued:
                stream.queued = True
                self.queue.append(stream)
            while self.max_unfinished and self.unfinished > self.max_unfinished:
                self.end_largest()
        if self.head == len(self.queue) or self.head > EVENTS:
            del self.queue[: self.head]
            self.head = 0
        if self.arrivals:
            self.accept()
        return batch

    def release(self, bytes peer not None):
        """This routing id may be somebody else's from now on."""
        self.leaving.discard(peer)

    cdef int end_largest(self) except -1:
        """The connection that holds most of what is not complete."""
        cdef ByteStream largest = None, stream
        for one in self.by_fd:
            if one is None:
                continue
            stream = <ByteStream>one
            if largest is None or stream.unfinished > largest.unfinished:
                largest = stream
        return self.end(largest, UNFINISHED)

    cdef int accept(self) except -1:
        cdef list arrivals = self.arrivals
        cdef int fd, made, number, n
        cdef sockaddr_storage address
        cdef socklen_t size
        self.arrivals = []
        for fd in arrivals:
            for n in range(ACCEPTED_AT_ONCE):
                size = sizeof(address)
                made = accept4(fd, <sockaddr*>&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
                if made >= 0:
                    self.welcome(made, _host(&address))
                    continue
                number = errno
                if number in (EMFILE, ENFILE, ENOBUFS, ENOMEM):
                    self.out_of_descriptors()
                    return 0
                if number not in (EINTR, ECONNABORTED):
                    break
        return 0

    cdef int out_of_descriptors(self) except -1:
        """Who waits to be accepted would be told of at every turn."""
        if not self.exhausted:
            self.exhausted = True
            for fd in self.listening:
                self.watch(fd, EPOLL_CTL_DEL, False, False)
        return 0

    cdef int welcome(self, int fd, str host) except -1:
        cdef ByteStream stream = ByteStream(fd, self.now)
        while len(self.by_fd) <= fd:
            self.by_fd.append(None)
        try:
            self.watch(fd, EPOLL_CTL_ADD, True, False)
        except OSError:  # the kernel watches no more than it was told
            stream.state = ENDED
            close(fd)
            return self.out_of_descriptors()
        self.by_fd[fd] = stream
        self.open_count += 1
        self.young.append(stream)
        self.told.append((NEW, fd, None, host))
        return self.begin(stream)

    def expire(self, double before):
        """Ends who began before that time and is not done with the handshake; of many only some,
        for others wait meanwhile.

        When the next one began; infinity when there is none.
        """
        cdef ByteStream stream
        cdef int ended = 0
        while self.young:
            stream = <ByteStream>self.young[0]
            if stream.state < OPEN:
                if stream.began > before or ended == ENDED_AT_ONCE:
                    return stream.began
                self.end(stream, BROKEN_OFF)
                ended += 1
            self.young.popleft()
        return float("inf")

    def send(self, list batch not None):
        """As `wire.RouterWire.send`."""
        cdef list refused = []
        cdef list dirty = []
        cdef Py_ssize_t n
        cdef tuple one
        cdef object found
        cdef ByteStream stream
        cdef list stopped = []
        try:
            for n in range(len(batch)):
                one = <tuple>batch[n]
                found = self.by_peer.get(one[0])
                if found is None:
                    refused.append((n, EHOSTUNREACH))
                    continue
                stream = <ByteStream>found
                if stream.deaf:
                    refused.append((n, EHOSTUNREACH))
                    continue
                if stream.stopped or self.is_full(stream):
                    if not stream.stopped:
                        stream.stopped = True
                        stopped.append(stream)
                    refused.append((n, EAGAIN))
                    continue
                stream.put_message(one[1])
                if not stream.dirty:
                    if len(dirty) == TOGETHER:
                        self.flush_all(dirty)
                    stream.dirty = True
                    dirty.append(stream)
                elif stream.unsent() > EARLY and not stream.asks_to_write:
                    self.flush(stream)
                    stream.dirty = True
        finally:
            self.flush_all(dirty)
            for stream in stopped:
                stream.stopped = False
        return refused

    cdef int flush_all(self, list dirty) except -1:
        """And forget them."""
        cdef ByteStream stream
        for stream in dirty:
            self.flush(stream)
        dirty.clear()
        return 0

    cdef inline bint is_full(self, ByteStream stream) except -1:
        if not self.holds_much(stream):
            return False
        self.flush(stream)
        return self.holds_much(stream)

    cdef inline bint holds_much(self, ByteStream stream) noexcept:
        if self.max_unsent and stream.unsent() >= self.max_unsent:
            return True
        return stream.messages() >= self.hwm

    def knows(self, bytes peer not None):
        """Whether there is a connection of this routing id."""
        return peer in self.by_peer

    def cut(self, int fd):
        """Ends a connection; `news` does not tell. May be repeated."""
        if 0 <= fd < len(self.by_fd) and self.by_fd[fd] is not None:
            stream = <ByteStream>self.by_fd[fd]
            told = len(self.told)
            shutdown(fd, SHUT_RDWR)
            self.end(stream, "")
            self.leaving.discard(stream.peer)
            del self.told[told:]

    def unsent(self):
        """How many connections have something that the kernel has not taken yet."""
        return sum((<ByteStream>one).out != NULL for one in self.by_fd if one is not None)

    def finish(self):
        """Says that nothing more will come, where everything is written."""
        cdef ByteStream stream
        for stream in [one for one in self.by_fd if one is not None]:
            self.flush(stream)
            if stream.out == NULL and not self.abandoned:
                shutdown(stream.fd, SHUT_WR)

    def drop(self, double now):
        """Reads and forgets once; the result is how many connections are still there."""
        self.receive(1000, now)
        self.told.clear()
        return self.open_count

    def close(self):
        """Ends every connection. May be repeated."""
        for one in self.by_fd:
            if one is not None:
                self.end(<ByteStream>one, "")
        self.told.clear()

    cdef int deliver(self, ByteStream stream, list frames, list batch) except -1:
        batch.append((stream.peer, frames))
        return 0

    cdef str opened(self, ByteStream stream, bytes peer, bytes kind):
        if kind not in (b"", b"REQ", b"DEALER", b"ROUTER"):
            return MALFORMED
        if not peer:
            while not peer or peer in self.by_peer or peer in self.leaving:
                peer = self.mark + b"\0" + self.make_id(4)
        elif peer[0] == 0 or len(self.mark) + len(peer) > MAX_ID:
            return MALFORMED  # RFC 28: "starting with a zero octet" are the ROUTER's own
        else:
            peer = self.mark + peer
            if peer in self.by_peer:
                return ID_IN_USE
            if peer in self.leaving:
                stream.waiting = stream.queued = True
                self.later.append(stream)
                return NOT_YET
        stream.peer = peer
        self.by_peer[peer] = stream
        return None

    cdef int ended(self, ByteStream stream, str why) except -1:
        self.by_fd[stream.fd] = None
        self.open_count -= 1
        if stream.state == OPEN:
            self.by_peer.pop(stream.peer, None)
            self.leaving.add(stream.peer)
            self.told.append((GONE_AWAY, stream.fd, stream.peer, why))
        else:
            self.told.append((TURNED_AWAY, stream.fd, None, why))
        return 0


cdef str _host(sockaddr_storage* address):
    """The other end's address; "" for what is not the internet's."""
    cdef char[64] text
    cdef int family = address.ss_family
    cdef const void* raw
    if family == AF_INET:
        raw = &(<sockaddr_in*>address).sin_addr
    elif family == AF_INET6:
        raw = &(<sockaddr_in6*>address).sin6_addr
    else:
        return ""
    if inet_ntop(family, raw, text, sizeof(text)) == NULL:
        return ""
    return (<bytes>text).decode("ascii")
