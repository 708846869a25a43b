# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Many connections of our own ZMTP, with the interface of a ROUTER (`net/zmq/wire.py`)."""

import collections

from majordomus.net.zmtp.engine import (
    BROKEN_OFF,
    CONNECTION_ENDED,
    ID_IN_USE,
    MALFORMED,
    CONNECTION_OPENED,
    NOT_YET,
    HANDSHAKE_FAILED,
    STALLED,
    UNFINISHED,
)
from majordomus.net.zmtp.mechanisms import Null
from time import monotonic

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
from majordomus.net.zmtp.posix cimport (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLLOUT,
    SHUT_RDWR,
    SHUT_WR,
    SIOCOUTQ,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SO_PEERCRED,
    SOL_SOCKET,
    accept4,
    close,
    epoll_event,
    epoll_wait,
    getsockopt,
    inet_ntop,
    ioctl,
    shutdown,
    sockaddr,
    sockaddr_in,
    sockaddr_in6,
    sockaddr_storage,
    socklen_t,
    ucred,
)
from majordomus.net.zmtp.mechanisms cimport Mechanism
from majordomus.net.zmtp.stream cimport ENDED, OPEN, ByteStream
from majordomus.net.zmtp.engine cimport MAX_READ, FLUSH_AT, MAX_ID, Engine

cdef enum:
    ROUTER_TYPE = 6  # ZMTP/2.0 (RFC 15): a socket's type is a number
    TURN_MESSAGES = 32  # messages of one connection before others get their turn
    EVENTS = 256
    MAX_DIRTY = 192  # connections with unwritten messages; below the number of free out buffers
    ACCEPTED_AT_ONCE = 16
    ACCEPTED_AT_LEAST = 2  # however long handshakes take
    ENDED_AT_ONCE = 8
    SHAKEN_AT_LEAST = 4  # connections in the handshake that get a turn, however long they take
    SMALL_MESSAGE = 64 * 1024  # one is accepted although the send buffers are full in all
    MULTIPLICATIONS = 8  # of all handshakes in one turn: about a quarter of a millisecond
    ACCEPTED = 200  # a status of RFC 27
    CLOCK_EVERY = 64 * 1024  # bytes that are read before the clock is asked whether a turn is over

cdef double STALLED_AFTER = 5.0
"""Seconds without any progress after which a connection may be ended for room in all."""
cdef double LONGEST_TURN = 0.0007
"""Seconds of reading after which `receive` returns."""
cdef double LONGEST_HANDSHAKES = 0.0003
"""Seconds of one `receive` for connections that are not open yet, and for those to accept."""


cdef class TcpRouter(Engine):
    """A ROUTER with MANDATORY, for the connections of its listening sockets.

    It belongs to one thread. `receive` and `send` are those of `RouterWire`; they never wait.

    `make_id(n)` returns n random bytes, for peers without a routing id.
    `hwm`, `max_unsent`: messages and bytes that may wait for one peer; then it is full.
    `max_frames`, `max_bytes`: what is kept of one message; a `Cut` stands for the rest, and the
    message is delivered before the rest has arrived.
    `max_dropped`, `max_dropping`: bytes and seconds of that rest, after which the connection is
    ended. There each frame counts as 64 bytes more, so that empty frames come to an end.
    `max_unfinished`: bytes that incomplete messages may hold together; beyond it the connection
    that holds most is ended.
    `max_all_unsent`: bytes that may wait for all peers together. Then a connection with unsent
    bytes is full, and the others take one small message at a time, up to twice the bound; and the
    connection that holds most and has taken nothing for STALLED_AFTER is ended.
    `extra`: a descriptor that `wait` watches too.
    `mark`: the prefix of every routing id, to distinguish them from those of another socket.
    A bound of 0 is none.
    `make_mechanism()` makes the mechanism of a connection; by default it is NULL.
    `authenticate(serial, fd, host, credentials)` returns a status of RFC 27 and a proof. With the
    status 0 the answer comes later, by `decide` with that serial number.
    `admit(fd, peer, proof)` is called before the first message of an accepted peer. It returns
    whether the peer may have this routing id.

    A turn spends at most MULTIPLICATIONS scalar multiplications on handshakes, half of them on
    those of one address. Other handshakes wait for later turns.

    After CONNECTION_ENDED a routing id stays reserved until `release`: a new connection with the
    same id waits in its handshake.
    """

    cdef list by_fd  # ByteStream at the index of its descriptor
    cdef dict by_peer
    cdef set listening
    cdef list arrivals  # listening sockets with connections to accept
    cdef list queue  # streams that wait for their turn, from `head` on
    cdef Py_ssize_t head
    cdef list waiting_for_id  # streams whose routing id is reserved
    cdef set ended_ids  # routing ids that are reserved until `release`
    cdef object in_handshake  # streams, oldest first; some have completed it since
    cdef object make_id
    cdef object new_mechanism, authenticator, admit
    cdef dict asked  # streams whose authentication is pending, by serial number
    cdef int serial  # the last one
    cdef object shaking  # streams that are not open yet and have input
    cdef object postponed  # streams whose handshakes wait for multiplications
    cdef dict spent  # multiplications of this turn, by address
    cdef bytes mark
    cdef int hwm, extra
    cdef size_t max_unsent, max_all_unsent, max_unfinished
    cdef double look_for_stalled  # when to look for one again
    cdef epoll_event[EVENTS] epoll_events
    cdef bint polled  # epoll_wait was called since the last `receive`
    cdef bint poll_was_full  # the last epoll_wait may have left events
    cdef readonly int open_count
    cdef readonly bint exhausted
    """Whether accepting has stopped for want of descriptors; `accept_again` resumes it."""

    def __init__(
        self, make_id, *, int hwm=1000, size_t max_frames=0, size_t max_bytes=0,
        size_t max_dropped=0, double max_dropping=0, size_t max_unsent=0, size_t max_all_unsent=0,
        size_t max_unfinished=0, int extra=-1,
        bytes mark not None=b"", make_mechanism=None, authenticate=None, admit=None,
    ):
        self.make_id, self.hwm, self.extra = make_id, hwm, extra
        self.max_frames, self.max_bytes = max_frames, max_bytes
        self.max_dropped, self.max_dropping = max_dropped, max_dropping
        self.max_unsent, self.max_unfinished = max_unsent, max_unfinished
        self.max_all_unsent = max_all_unsent
        self.new_mechanism, self.authenticator, self.admit = make_mechanism, authenticate, admit
        self.asked, self.postponed, self.spent = {}, collections.deque(), {}
        self.shaking = collections.deque()
        cdef Mechanism first = self.make_mechanism()
        self.set_mechanism(first.name, first.as_server)
        self.zmtp2_ready = bytes([ROUTER_TYPE, 0, 0])
        self.by_fd, self.by_peer, self.listening = [], {}, set()
        self.queue, self.waiting_for_id, self.ended_ids, self.mark = [], [], set(), mark
        self.arrivals, self.in_handshake = [], collections.deque()
        if extra >= 0:
            self.watch(extra, EPOLL_CTL_ADD, True, False)

    def listen(self, int fd):
        """Accept connections from a non-blocking listening socket. The caller closes it after
        `unlisten`."""
        if not self.exhausted:
            self.watch(fd, EPOLL_CTL_ADD, True, False)
        self.listening.add(fd)

    def unlisten(self, int fd):
        """Accept no more connections from this socket. May be repeated."""
        if fd in self.listening:
            self.listening.discard(fd)
            if not self.exhausted:
                self.watch(fd, EPOLL_CTL_DEL, False, False)
        self.arrivals = [one for one in self.arrivals if one != fd]

    def accept_again(self):
        """Try to accept connections again, after `exhausted`."""
        if self.exhausted:
            self.exhausted = False
            for fd in self.listening:
                self.watch(fd, EPOLL_CTL_ADD, True, False)

    def wait(self, int milliseconds):
        """Wait for work. Returns 1 when `extra` is readable, 2 when `receive` has work, 3 for both;
        0 after the time, and earlier when a signal was handled."""
        cdef int found, number = 0
        if self.pending or self.arrivals:
            return 2
        if milliseconds == 0:
            found = epoll_wait(self.epoll, self.epoll_events, EVENTS, 0)
        else:
            with nogil:
                found = epoll_wait(self.epoll, self.epoll_events, EVENTS, milliseconds)
        if found < 0:
            number = errno
            if number != EINTR:
                raise OSError(number, "epoll_wait")
            PyErr_CheckSignals()
            return 0
        return self.note_ready(found)

    @property
    def pending(self):
        """Whether `receive` has work although `fd` may not be readable."""
        return (
            self.head < len(self.queue)
            or bool(self.shaking)
            or bool(self.waiting_for_id)
            or bool(self.postponed)
        )

    cdef int note_ready(self, int found) except -1:
        """Queue the streams of `found` epoll events for a turn. Returns the result of `wait`."""
        cdef int n, fd, mask = 0
        cdef uint32_t events
        cdef object one
        cdef ByteStream stream
        self.polled, self.poll_was_full = True, found == EVENTS
        for n in range(found):
            fd, events = self.epoll_events[n].data.fd, self.epoll_events[n].events
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
            if events & ~<uint32_t>EPOLLOUT:
                self.enqueue(stream)
        return mask

    cdef int enqueue(self, ByteStream stream) except -1:
        """Give a connection a turn, if it does not wait for one yet."""
        if stream.queued:
            return 0
        stream.queued = True
        if stream.state < OPEN:
            self.shaking.append(stream)
        else:
            self.queue.append(stream)
        return 0

    def receive(self, Py_ssize_t most, double now):
        """Return up to `most` messages; there are no more unless `pending` is set.

        It also accepts connections, runs handshakes and detects ended connections. Connections take
        turns of TURN_MESSAGES messages, or of an eighth of `most`. Reading ends after LONGEST_TURN.
        Connections that are not open yet, and those to accept, have LONGEST_HANDSHAKES behind the
        others. A message of an open connection waits so long at most, however many connections
        come.
        """
        cdef list batch = []
        cdef ByteStream stream
        cdef Py_ssize_t share, limit = most, turn = most // 8 or 1
        cdef size_t ask_at = CLOCK_EVERY
        cdef double until = 0.0
        if turn > TURN_MESSAGES:
            turn = TURN_MESSAGES
        self.now, self.bytes_read = now, 0
        if self.max_all_unsent and self.unsent_bytes >= self.max_all_unsent:
            self.end_stalled()
        if self.waiting_for_id:
            self.shaking.extend(self.waiting_for_id)
            self.waiting_for_id = []
        self.budget = MULTIPLICATIONS
        if self.spent:
            self.spent.clear()
        if self.postponed:
            self.resume_handshakes()
        if not self.polled:
            self.note_ready(max(0, epoll_wait(self.epoll, self.epoll_events, EVENTS, 0)))
        self.polled = False
        if self.shaking and turn < most:
            limit -= turn  # at least one connection in the handshake gets a turn
        while len(batch) < limit and self.bytes_read < MAX_READ:
            if self.head == len(self.queue):
                if not self.poll_was_full:
                    break
                self.note_ready(max(0, epoll_wait(self.epoll, self.epoll_events, EVENTS, 0)))
                self.polled = False
                if self.head == len(self.queue):
                    break
            stream = <ByteStream>self.queue[self.head]
            self.head += 1
            stream.queued = False
            if stream.state == ENDED:
                continue
            share = len(batch) + turn
            self.run_turn(stream, batch, share if share < limit else limit)
            if (stream.unparsed or stream.readable) and stream.state != ENDED:
                self.enqueue(stream)
            while self.max_unfinished and self.unfinished > self.max_unfinished:
                self.end_largest()
            if self.bytes_read >= ask_at:
                ask_at = self.bytes_read + CLOCK_EVERY
                if until == 0.0:
                    until = monotonic() + LONGEST_TURN
                elif monotonic() >= until:
                    break
        if self.head == len(self.queue) or self.head > EVENTS:
            del self.queue[: self.head]
            self.head = 0
        if self.shaking or self.arrivals:
            until = monotonic() + LONGEST_HANDSHAKES
            self.run_handshakes(batch, turn, most, until)
            self.accept(until)
        return batch

    cdef int run_handshakes(
        self, list batch, Py_ssize_t turn, Py_ssize_t most, double until
    ) except -1:
        """Give turns to connections that are not open yet, in the order of their input.

        Others go first: a peer that comes back brings the routing id of a connection that has ended.
        """
        cdef int run = 0
        cdef Py_ssize_t left = len(self.shaking)
        cdef ByteStream stream
        while left > 0 and len(batch) < most:
            if run >= SHAKEN_AT_LEAST and monotonic() >= until:
                break
            left -= 1
            run += 1
            stream = <ByteStream>self.shaking.popleft()
            stream.queued = False
            if stream.state == ENDED:
                continue
            self.run_turn(stream, batch, min(len(batch) + turn, most))
            if (stream.unparsed or stream.readable) and stream.state != ENDED:
                self.enqueue(stream)
        return 0

    cdef int resume_handshakes(self) except -1:
        """Give turns to handshakes that wait for multiplications, before those that are new."""
        cdef list resumed = []
        while self.postponed and len(resumed) < MULTIPLICATIONS // 2:
            resumed.append(self.postponed.popleft())
        self.shaking.extendleft(reversed(resumed))
        return 0

    def decide(self, int serial, int status, str proof not None):
        """Give the outcome of an authentication that was pending.

        Returns False when the connection has ended meanwhile.
        """
        cdef ByteStream stream = self.asked.pop(serial, None)
        if stream is None or stream.state == ENDED or stream.serial != serial:
            return False
        stream.verdict, stream.proof, stream.unparsed = status, proof, True
        self.enqueue(stream)
        return True

    def release(self, bytes peer not None):
        """Allow a new connection to use this routing id."""
        self.ended_ids.discard(peer)

    cdef int end_largest(self) except -1:
        """End the connection with the largest unfinished message."""
        cdef ByteStream largest = None, stream
        for one in self.by_fd:
            if one is None:
                continue
            stream = <ByteStream>one
            if largest is None or stream.unfinished > largest.unfinished:
                largest = stream
        return self.end(largest, UNFINISHED)

    cdef int end_stalled(self) except -1:
        """End the connection with the most unsent bytes among those that take none of them."""
        cdef ByteStream largest = None, stream
        if self.now < self.look_for_stalled:
            return 0
        self.look_for_stalled = self.now + STALLED_AFTER / 20
        for one in self.by_fd:
            if one is None:
                continue
            stream = <ByteStream>one
            if stream.counted_unsent == 0 or self.now - stream.progress < STALLED_AFTER:
                continue
            if largest is None or stream.counted_unsent > largest.counted_unsent:
                largest = stream
        return 0 if largest is None else self.end(largest, STALLED)

    cdef int accept(self, double until) except -1:
        """Accept connections, until that time; the kernel reports again those that are left."""
        cdef list arrivals = self.arrivals
        cdef int fd, made, number, n
        cdef sockaddr_storage address
        cdef socklen_t size
        self.arrivals = []
        for fd in arrivals:
            for n in range(ACCEPTED_AT_ONCE):
                if n >= ACCEPTED_AT_LEAST and monotonic() >= until:
                    break
                size = sizeof(address)
                made = accept4(fd, <sockaddr*>&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
                if made >= 0:
                    self.add_connection(made, _host(made, &address))
                    continue
                number = errno
                if number in (EMFILE, ENFILE, ENOBUFS, ENOMEM):
                    self.out_of_descriptors()
                    return 0
                if number not in (EINTR, ECONNABORTED):
                    break
        return 0

    cdef int out_of_descriptors(self) except -1:
        """Stop watching the listening sockets: they would be readable at every turn."""
        if not self.exhausted:
            self.exhausted = True
            for fd in self.listening:
                self.watch(fd, EPOLL_CTL_DEL, False, False)
        return 0

    cdef int add_connection(self, int fd, str host) except -1:
        cdef ByteStream stream = ByteStream(fd, self.now)
        while len(self.by_fd) <= fd:
            self.by_fd.append(None)
        try:
            self.watch(fd, EPOLL_CTL_ADD, True, False)
        except OSError:  # the kernel's limit of watched descriptors
            stream.state = ENDED
            close(fd)
            return self.out_of_descriptors()
        self.by_fd[fd] = stream
        stream.host = host.partition(" ")[0]  # without the process of an ipc connection
        self.open_count += 1
        self.in_handshake.append(stream)
        self.reported.append((CONNECTION_OPENED, fd, None, host))
        return self.begin_handshake(stream)

    def expire(self, double before):
        """End connections that began before that time and are still in the handshake: at most
        ENDED_AT_ONCE of them, so that others get their turn.

        Returns when the next one began; infinity when none is in the handshake.
        """
        cdef ByteStream stream
        cdef int ended = 0
        while self.in_handshake:
            stream = <ByteStream>self.in_handshake[0]
            if stream.state < OPEN:
                if stream.began > before or ended == ENDED_AT_ONCE:
                    return stream.began
                self.end(stream, BROKEN_OFF)
                ended += 1
            self.in_handshake.popleft()
        return float("inf")

    def send(self, list batch not None):
        """Send a batch, as `RouterWire.send` does; the messages of one peer keep their order."""
        cdef list refused = []
        cdef list dirty = []
        cdef Py_ssize_t n
        cdef tuple one
        cdef object found
        cdef ByteStream stream
        cdef list refusing = []
        try:
            for n in range(len(batch)):
                one = <tuple>batch[n]
                found = self.by_peer.get(one[0])
                if found is None:
                    refused.append((n, EHOSTUNREACH))
                    continue
                stream = <ByteStream>found
                if stream.write_failed:
                    refused.append((n, EHOSTUNREACH))
                    continue
                if stream.refusing or self.is_full(stream, <list>one[1]):
                    if not stream.refusing:
                        stream.refusing = True
                        refusing.append(stream)
                    refused.append((n, EAGAIN))
                    continue
                stream.put_message(one[1])
                if not stream.dirty:
                    if len(dirty) == MAX_DIRTY:
                        self.flush_all(dirty)
                    stream.dirty = True
                    dirty.append(stream)
                elif stream.unsent() > FLUSH_AT and not stream.write_watched:
                    self.flush(stream)
                    stream.dirty = True
        finally:
            self.flush_all(dirty)
            for stream in refusing:
                stream.refusing = False
        return refused

    cdef int flush_all(self, list dirty) except -1:
        """Write what is unsent of these streams, and clear the list."""
        cdef ByteStream stream
        for stream in dirty:
            self.flush(stream)
        dirty.clear()
        return 0

    cdef inline bint is_full(self, ByteStream stream, list frames) except -1:
        if self.max_all_unsent and self.unsent_bytes >= self.max_all_unsent:
            if self.has_no_share(stream, frames):
                return True
        if not self.at_limit(stream):
            return False
        self.flush(stream)
        return self.at_limit(stream)

    cdef bint has_no_share(self, ByteStream stream, list frames) except -1:
        """Whether the send buffers, which are full in all, must not take this message as well."""
        cdef Py_ssize_t size = 0
        if stream.unsent() or self.unsent_bytes >= 2 * self.max_all_unsent:
            return True
        for frame in frames:
            size += len(frame)
        return size > SMALL_MESSAGE

    cdef inline bint at_limit(self, ByteStream stream) noexcept:
        if self.max_unsent and stream.unsent() >= self.max_unsent:
            return True
        return stream.messages() >= self.hwm

    def has_peer(self, bytes peer not None):
        """Return whether a connection has this routing id."""
        return peer in self.by_peer

    def cut(self, int fd):
        """End a connection without an event. May be repeated."""
        if 0 <= fd < len(self.by_fd) and self.by_fd[fd] is not None:
            stream = <ByteStream>self.by_fd[fd]
            reported = len(self.reported)
            shutdown(fd, SHUT_RDWR)
            self.end(stream, "")
            self.ended_ids.discard(stream.peer)
            del self.reported[reported:]

    def buffered(self):
        """Return the bytes of unsent output and of unfinished messages, of all connections."""
        return self.unsent_bytes, self.unfinished

    def unsent(self):
        """Return the number of connections with unsent bytes."""
        return sum((<ByteStream>one).out != NULL for one in self.by_fd if one is not None)

    def undelivered(self):
        """Return the number of messages that the kernel has not taken, and of connections whose
        peer's kernel has not acknowledged what ours has taken."""
        cdef ByteStream stream
        cdef int waiting, count = 0
        for one in self.by_fd:
            if one is None:
                continue
            stream, waiting = <ByteStream>one, 0
            if stream.messages():
                count += stream.messages()
            elif ioctl(stream.fd, SIOCOUTQ, &waiting) == 0 and waiting:
                count += 1
        return count

    def finish(self):
        """Write what is unsent; shut down the sending side of connections without unsent bytes."""
        cdef ByteStream stream
        for stream in [one for one in self.by_fd if one is not None]:
            self.flush(stream)
            if stream.out == NULL and not self.abandoned:
                shutdown(stream.fd, SHUT_WR)

    def discard_input(self, double now):
        """Read once and drop the messages. Returns the number of open connections."""
        self.receive(1000, now)
        self.reported.clear()
        return self.open_count

    def close(self):
        """End every connection. May be repeated."""
        for one in self.by_fd:
            if one is not None:
                self.end(<ByteStream>one, "")
        self.reported.clear()

    cdef int deliver(self, ByteStream stream, list frames, list batch) except -1:
        batch.append((stream.peer, frames))
        return 0

    cdef Mechanism make_mechanism(self):
        return Null(b"ROUTER") if self.new_mechanism is None else self.new_mechanism()

    cdef int authenticate(self, ByteStream stream) except -1:
        cdef int status
        cdef object credentials = ()
        stream.proof = ""
        if self.authenticator is None:
            return ACCEPTED
        if stream.mechanism is not None:
            credentials = stream.mechanism.credentials
        self.serial += 1
        status, proof = self.authenticator(self.serial, stream.fd, stream.host, credentials)
        stream.proof = proof
        if status == 0:
            stream.serial = self.serial
            self.asked[self.serial] = stream
        return status

    cdef bint may_spend(self, ByteStream stream, int cost) except -1:
        """Take multiplications from the budget of this turn, if it has so many."""
        cdef int spent
        if cost > self.budget:
            return False
        spent = self.spent.get(stream.host, 0) + cost
        if spent > MULTIPLICATIONS // 2 and stream.host:
            return False
        self.spent[stream.host] = spent
        self.budget -= cost
        return True

    cdef int postpone(self, ByteStream stream) except -1:
        stream.unparsed = stream.queued = True
        self.postponed.append(stream)
        return 0

    cdef str accept_peer(self, ByteStream stream, bytes peer, bytes kind):
        if kind not in (b"", b"REQ", b"DEALER", b"ROUTER"):
            return MALFORMED
        if not peer:
            while not peer or peer in self.by_peer or peer in self.ended_ids:
                peer = self.mark + b"\0" + self.make_id(4)
        elif peer[0] == 0 or len(self.mark) + len(peer) > MAX_ID:
            return MALFORMED  # RFC 28: ids "starting with a zero octet" are assigned by the ROUTER
        else:
            peer = self.mark + peer
            owner = self.by_peer.get(peer)
            if owner is not None and not (<ByteStream>owner).queued:
                return ID_IN_USE
            if owner is not None or peer in self.ended_ids:  # the owner's input may be its end
                stream.unparsed = stream.queued = True
                self.waiting_for_id.append(stream)
                return NOT_YET
        if self.admit is not None and not self.admit(stream.fd, peer, stream.proof):
            return ID_IN_USE
        stream.peer = peer
        self.by_peer[peer] = stream
        return None

    cdef int connection_ended(self, ByteStream stream, str why) except -1:
        self.by_fd[stream.fd] = None
        self.open_count -= 1
        if stream.state == OPEN:
            self.by_peer.pop(stream.peer, None)
            self.ended_ids.add(stream.peer)
            self.reported.append((CONNECTION_ENDED, stream.fd, stream.peer, why))
        else:
            self.reported.append((HANDSHAKE_FAILED, stream.fd, None, why))
        return 0


cdef str _host(int fd, sockaddr_storage* address):
    """Return the peer's IP address; of a Unix socket the peer's user and process, as
    `uid:1000 pid:77`. The kernel notes them at `connect`; a pid of 0 is one that it cannot name."""
    cdef char[64] text
    cdef int family = address.ss_family
    cdef const void* raw
    if family == AF_INET:
        raw = &(<sockaddr_in*>address).sin_addr
    elif family == AF_INET6:
        raw = &(<sockaddr_in6*>address).sin6_addr
    elif family == AF_UNIX:
        return _credentials(fd)
    else:
        return ""
    if inet_ntop(family, raw, text, sizeof(text)) == NULL:
        return ""
    return (<bytes>text).decode("ascii")


cdef str _credentials(int fd):
    cdef ucred found
    cdef socklen_t size = sizeof(found)
    if getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &found, &size) != 0:
        return ""
    return f"uid:{found.uid} pid:{found.pid}"
