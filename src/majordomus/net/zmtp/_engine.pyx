# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""ZMTP 3.1 (RFC 37) over stream sockets, spoken in the caller's thread: the quick wire of plain TCP.

No rule of Majordomo is in it. libzmq has a thread of its own for its connections, and every message
crosses two queues and two wake-ups on its way there and back; here a message is bytes in a buffer.
Only the NULL mechanism is spoken: what is encrypted or asks for a password is libzmq's.
docs/adr/0011-own-zmtp.md tells why it is as it is. Linux alone has what it waits with (epoll).
"""

from majordomus.net.bodies import Cut

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EAGAIN, ECONNRESET, EINTR, EPIPE, errno
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy
from majordomus.net.zmtp._octets cimport bytes_of, grow
from majordomus.net.zmtp._posix cimport (
    EPOLL_CLOEXEC,
    EPOLL_CTL_DEL,
    EPOLL_CTL_MOD,
    EPOLLIN,
    EPOLLOUT,
    MSG_DONTWAIT,
    SHUT_RDWR,
    close,
    epoll_create1,
    epoll_ctl,
    epoll_event,
    recv,
    shutdown,
)
from majordomus.net.zmtp._stream cimport (
    COMMAND,
    ENDED,
    GREETED,
    INTRODUCED,
    LONG,
    MORE,
    NAMED,
    OPEN,
    RESERVED,
    SIGNED,
    SMALL,
    TYPED,
    ByteStream,
)

cdef enum:
    SIGNATURE = 11  # with the major version: all that has to be known before the rest is said
    GREETING = 64
    MAX_COMMAND = 4096

cdef enum:
    VISIT = 1024 * 1024  # bytes of one connection before the others have their turn
    FRAME = 64  # what a frame holds besides its bytes
    FIRST_ROOM = 64 * 1024
    IDLE_ROOM = 16 * 1024  # a buffer that is larger is given back when it is empty

cdef bytes OUR_SIGNATURE = b"\xff\0\0\0\0\0\0\0\1\x7f\x03"
cdef bytes OUR_GREETING = b"\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
cdef bytes NULL_MECHANISM = b"NULL".ljust(20, b"\0")

# What `news` tells, and why; tcp_port.py and tcp_link.py read it.
NEW, GREETED_WELL, GONE_AWAY, TURNED_AWAY = 1, 2, 3, 4

NOT_ZMTP = "not-zmtp"
ANOTHER_MECHANISM = "another-mechanism"
MALFORMED = "malformed"
BROKEN_OFF = "broken-off"
ID_IN_USE = "routing-id-in-use"
ENDLESS = "endless-message"
TOO_LARGE = "frame-too-large"
UNFINISHED = "unfinished-messages"
UNREACHED = "unreached"
REFUSED = "refused "  # and the status code
NOT_YET = "not yet"


cdef class Engine:
    """Reads and writes streams. What a message is handed to, and what an end means, is said by who
    inherits.
    """

    def __cinit__(self, *_args, **_named):
        self.told = []
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise OSError(errno, "epoll_create1")
        self.scratch = <unsigned char*>malloc(SCRATCH)
        if self.scratch == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.scratch)
        if self.epoll >= 0:
            close(self.epoll)

    @property
    def fd(self):
        """Readable when there is something to do: to read, to write, to accept."""
        return self.epoll

    def abandon(self):
        """In a child after a fork: lets go of the descriptors without a word to anybody, for the
        connections are the parent's."""
        self.abandoned = True
        self.close()

    def news(self):
        """What has become of connections since the last call, in order:

        (what, descriptor, routing id or None, why or the other end's address).
        """
        if not self.told:
            return []
        told, self.told = self.told, []
        return told

    # ── for who inherits ──────────────────────────────────────────────────────────────────────────

    cdef int deliver(self, ByteStream stream, list frames, list batch) except -1:
        raise NotImplementedError

    cdef str opened(self, ByteStream stream, bytes peer, bytes kind):
        """The handshake is done; the result is why the peer is turned away, or None."""
        raise NotImplementedError

    cdef int ended(self, ByteStream stream, str why) except -1:
        """The connection is over, and its descriptor still open."""
        raise NotImplementedError

    # ── the kernel ────────────────────────────────────────────────────────────────────────────────

    cdef int watch(self, int fd, int operation, bint to_read, bint to_write) except -1:
        cdef epoll_event event
        event.events = (EPOLLIN if to_read else 0) | (EPOLLOUT if to_write else 0)
        event.data.fd = fd
        if epoll_ctl(self.epoll, operation, fd, &event) != 0:
            raise OSError(errno, "epoll_ctl")
        return 0

    cdef int flush(self, ByteStream stream) except -1:
        """Writes; what the kernel does not take is written when it can be."""
        cdef int number
        stream.dirty = False
        if stream.state == ENDED or stream.deaf:
            return 0
        number = stream.write()
        if number == EAGAIN:
            if not stream.asks_to_write:
                stream.asks_to_write = True
                self.watch(stream.fd, EPOLL_CTL_MOD, True, True)
            return 0
        if number != 0:
            stream.deaf = True  # its last words may still be there to read; then comes the end
            if number != EPIPE and number != ECONNRESET:
                shutdown(stream.fd, SHUT_RDWR)
        if stream.asks_to_write:
            stream.asks_to_write = False
            self.watch(stream.fd, EPOLL_CTL_MOD, True, False)
        return 0

    cdef int end(self, ByteStream stream, str why) except -1:
        """Closes it. May be repeated."""
        if stream.state == ENDED:
            return 0
        self.ended(stream, why)
        stream.state = ENDED
        self.unfinished -= stream.unfinished
        stream.unfinished = 0
        if not self.abandoned:  # a forked child may have a copy: closing ours is not enough
            epoll_ctl(self.epoll, EPOLL_CTL_DEL, stream.fd, NULL)
        close(stream.fd)
        stream.release()
        return 0

    cdef int visit(self, ByteStream stream, list batch, Py_ssize_t most) except -1:
        """The turn of one connection: messages until the batch has `most`. Afterwards `waiting` or
        `more` say whether another turn finds more at once."""
        if stream.waiting:
            stream.waiting = False
            self.take(stream, stream.held + stream.held_at, stream.held_size, batch, most)
        else:
            self.read(stream, batch, most)
        if stream.state != ENDED and stream.out != NULL and not stream.asks_to_write:
            self.flush(stream)
        self.count_unfinished(stream)
        return 0

    cdef int read(self, ByteStream stream, list batch, Py_ssize_t most) except -1:
        """What the kernel has of this connection. A read that is not filled has emptied it."""
        cdef ssize_t got
        cdef size_t had
        cdef int number
        stream.more = False
        if stream.large != NULL and not self.read_large(stream, batch):
            return 0
        had = stream.held_size
        if had:
            memcpy(self.scratch, stream.held + stream.held_at, had)
            stream.held_at = stream.held_size = 0
        while True:
            got = recv(stream.fd, self.scratch + had, SCRATCH - had, MSG_DONTWAIT)
            number = errno
            if got >= 0 or number != EINTR:
                break
        if got <= 0:
            self.hold(stream, self.scratch, had)
            if got == 0 or number != EAGAIN:
                self.end(stream, BROKEN_OFF)
            return 0
        self.brought += <size_t>got
        stream.more = <size_t>got == SCRATCH - had
        self.take(stream, self.scratch, had + <size_t>got, batch, most)
        if stream.large != NULL and stream.more:
            self.read_large(stream, batch)
        return 0

    cdef void count_unfinished(self, ByteStream stream) noexcept:
        """After a visit: what is held of a message that is not complete."""
        cdef size_t now_held = stream.held_size + stream.kept - stream.dropped
        now_held += stream.count * FRAME
        if stream.state == ENDED:
            return
        if stream.large != NULL:
            now_held += stream.large_at - stream.large_size
        self.unfinished += now_held - stream.unfinished
        stream.unfinished = now_held

    cdef bint read_large(self, ByteStream stream, list batch) except -1:
        """The rest of a large frame, straight to where it stays. True when it is complete, and the
        visit not over."""
        cdef ssize_t got
        cdef size_t visit = 0
        while stream.large_at < stream.large_size:
            if visit >= VISIT:
                stream.more = True
                return False
            if stream.large_at == stream.large_room:
                self.more_room(stream)
            got = recv(
                stream.fd,
                bytes_of(<object>stream.large) + stream.large_at,
                stream.large_room - stream.large_at,
                MSG_DONTWAIT,
            )
            if got <= 0:
                if got < 0 and errno == EINTR:
                    continue
                if got == 0 or errno != EAGAIN:
                    self.end(stream, BROKEN_OFF)
                stream.more = False
                return False
            stream.large_at += <size_t>got
            visit += <size_t>got
            self.brought += <size_t>got
        self.end_large(stream, batch)
        return visit < VISIT

    cdef int more_room(self, ByteStream stream) except -1:
        """Grows as it fills: what a peer only announces takes no memory."""
        cdef size_t room = 2 * stream.large_room
        if room > stream.large_size:
            room = stream.large_size
        grow(&stream.large, <Py_ssize_t>room)
        stream.large_room = room
        return 0

    cdef int end_large(self, ByteStream stream, list batch) except -1:
        cdef object frame = <object>stream.large
        Py_DECREF(frame)  # the reference that `large` held is `frame`'s own now
        stream.large = NULL
        return self.add(stream, frame, stream.large_more, batch)

    cdef int hold(self, ByteStream stream, unsigned char* data, size_t size) except -1:
        """Keeps bytes for the next time, which may be held already."""
        cdef unsigned char* larger
        if stream.state == ENDED:
            return 0
        if size == 0:
            if stream.held_room > IDLE_ROOM:
                free(stream.held)
                stream.held, stream.held_room = NULL, 0
            stream.held_at = stream.held_size = 0
            return 0
        if stream.held != NULL and stream.held <= data < stream.held + stream.held_room:
            stream.held_at, stream.held_size = <size_t>(data - stream.held), size
            return 0
        if size > stream.held_room:
            larger = <unsigned char*>realloc(stream.held, size)
            if larger == NULL:
                raise MemoryError
            stream.held, stream.held_room = larger, size
        memcpy(stream.held, data, size)
        stream.held_at, stream.held_size = 0, size
        return 0

    # ── bytes to messages ─────────────────────────────────────────────────────────────────────────

    cdef int take(
        self, ByteStream stream, unsigned char* data, size_t size, list batch, Py_ssize_t most
    ) except -1:
        """Messages out of these bytes; the rest is held. `waiting` is set when more are in there."""
        cdef size_t at = 0, used
        while stream.state != OPEN and stream.state != ENDED:
            used = self.greet(stream, data + at, size - at)
            if used == 0:
                break
            at += used
        if stream.state == OPEN:
            at += self.parse(stream, data + at, size - at, batch, most)
        if stream.state == ENDED:
            return 0
        return self.hold(stream, data + at, size - at)

    cdef size_t parse(
        self, ByteStream stream, unsigned char* data, size_t size, list batch, Py_ssize_t most
    ) except? 999999999:
        """How many of these bytes are dealt with."""
        cdef size_t at = 0, head
        cdef uint64_t length
        cdef int flags, n
        while at < size:
            if stream.skip:
                at += self.skipped(stream, size - at, batch)
                continue
            if len(batch) >= most:
                stream.waiting = True
                break
            flags = data[at]
            if not flags & LONG:
                if size - at < 2:
                    break
                length, head = data[at + 1], 2
            else:
                if size - at < 9:
                    break
                length, head = 0, 9
                for n in range(8):
                    length = (length << 8) | data[at + 1 + n]
            if flags & RESERVED:
                self.end(stream, MALFORMED)
                return at
            if flags & COMMAND:
                if length > MAX_COMMAND:
                    self.end(stream, MALFORMED)
                    return at
                if size - at - head < length:
                    break
                self.command(stream, data + at + head, <size_t>length)
                at += head + <size_t>length
                continue
            if self.max_message and length > self.max_message:
                self.end(stream, TOO_LARGE)
                return at
            if size - at - head < length and length <= SMALL:
                break  # all of it or nothing, so that it is counted once
            if self.cuts(stream, <size_t>length):
                if stream.state == ENDED:
                    return at
                at += head
                stream.skip, stream.skip_more = <size_t>length, flags & MORE
                if length == 0:
                    self.skipped(stream, 0, batch)
                continue
            if size - at - head < length:
                self.begin_large(
                    stream, data + at + head, size - at - head, <size_t>length, flags & MORE
                )
                return size
            at += head
            self.add(
                stream,
                PyBytes_FromStringAndSize(<char*>data + at, <Py_ssize_t>length),
                flags & MORE,
                batch,
            )
            at += <size_t>length
        return at

    cdef bint cuts(self, ByteStream stream, size_t length) except -1:
        """Whether the next frame is beyond the bounds of a message, and is not kept."""
        stream.kept += length
        if not stream.cutting:
            stream.cutting = (self.max_bytes and stream.kept > self.max_bytes) or (
                self.max_frames and stream.count >= self.max_frames
            )
        if not stream.cutting:
            return False
        stream.dropped += length
        if self.max_message and stream.kept > self.max_message:
            self.end(stream, ENDLESS)
        return True

    cdef size_t skipped(self, ByteStream stream, size_t size, list batch) except? 999999999:
        """So many bytes of a frame that is not kept are here; how many are the frame's."""
        if size > stream.skip:
            size = stream.skip
        stream.skip -= size
        if stream.skip == 0 and not stream.skip_more:
            self.complete_cut(stream, batch)
        return size

    cdef int begin_large(
        self, ByteStream stream, unsigned char* data, size_t here, size_t length, bint more
    ) except -1:
        cdef size_t room = length if length < FIRST_ROOM else FIRST_ROOM
        cdef object made
        while room < here:
            room *= 2
        if room > length:
            room = length
        made = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>room)
        memcpy(bytes_of(made), data, here)
        Py_INCREF(made)
        stream.large = <PyObject*>made
        stream.large_at, stream.large_room, stream.large_size = here, room, length
        stream.large_more = more
        return 0

    cdef int add(self, ByteStream stream, object frame, bint more, list batch) except -1:
        """One more frame of the message that is on its way. Most have two at most: their list is
        made once, and as long as it has to be."""
        if stream.frames is not None:
            stream.frames.append(frame)
        elif stream.first is not None:
            stream.frames = [stream.first, frame]
            stream.first = None
        elif more:
            stream.first = frame
        else:
            stream.frames = [frame]
        if more:
            stream.count += 1
            return 0
        return self.complete(stream, batch)

    cdef int complete(self, ByteStream stream, list batch) except -1:
        cdef list frames = stream.frames
        stream.frames = None
        stream.kept = stream.dropped = stream.count = 0
        return self.deliver(stream, frames, batch)

    cdef int complete_cut(self, ByteStream stream, list batch) except -1:
        """What was dropped is known by its size."""
        if stream.frames is None:
            stream.frames = [] if stream.first is None else [stream.first]
            stream.first = None
        stream.frames.append(Cut(stream.dropped))
        stream.cutting = False
        return self.complete(stream, batch)

    cdef int command(self, ByteStream stream, unsigned char* data, size_t size) except -1:
        """RFC 37: "a PING command … the peer SHALL respond with PONG", with its context; others are
        not for us. Where something is to be written already, that is a sign of life as well, and
        who pings and never reads fills nothing."""
        cdef bytes context
        cdef size_t length
        if size < 7 or memcmp(data, b"\x04PING", 5) != 0 or stream.out != NULL:
            return 0
        length = size - 7 if size - 7 < 16 else 16
        context = PyBytes_FromStringAndSize(<char*>data + 7, <Py_ssize_t>length)
        return stream.put_raw(bytes([COMMAND, 5 + length]) + b"\x04PONG" + context)

    # ── the handshake ─────────────────────────────────────────────────────────────────────────────

    cdef int begin(self, ByteStream stream) except -1:
        """RFC 37: "each peer SHALL send a greeting"; the first part of it, so that a peer of an
        older version finds nothing that it would misread."""
        stream.state = SIGNED
        stream.put_raw(OUR_SIGNATURE)
        return self.flush(stream)

    cdef size_t greet(self, ByteStream stream, unsigned char* data, size_t size) except? 999999999:
        """How many of these bytes are dealt with; 0 when more are needed."""
        if stream.state == SIGNED:
            return self.signature(stream, data, size)
        if stream.state == GREETED:
            return self.greeting(stream, data, size)
        if stream.state == TYPED:
            stream.state = NAMED
            return 1 if size else self.undo(stream, TYPED)
        return self.introduction_of(stream, data, size)

    cdef size_t undo(self, ByteStream stream, int state) noexcept:
        stream.state = state
        return 0

    cdef size_t signature(self, ByteStream stream, unsigned char* data, size_t size) except? 999999999:
        if size and data[0] != 0xFF or size > 9 and not data[9] & 1:
            self.end(stream, NOT_ZMTP)
            return 0
        if size < SIGNATURE:
            return 0
        if data[10] >= 3:
            stream.put_raw(OUR_GREETING)
            stream.state = GREETED
        elif data[10] >= 1:
            stream.put_raw(self.old_introduction)
            stream.state = TYPED
        else:
            self.end(stream, MALFORMED)  # ZMTP/1.0 has other frames
            return 0
        self.flush(stream)
        return SIGNATURE

    cdef size_t greeting(self, ByteStream stream, unsigned char* data, size_t size) except? 999999999:
        """RFC 37: "a peer SHALL NOT assume" another mechanism; both have to be the same."""
        if size < GREETING - SIGNATURE:
            return 0
        if memcmp(data + 1, bytes_of(NULL_MECHANISM), 20) != 0:
            self.end(stream, ANOTHER_MECHANISM)
            return 0
        stream.put_raw(self.introduction)
        stream.state = INTRODUCED
        self.flush(stream)
        return GREETING - SIGNATURE

    cdef size_t introduction_of(
        self, ByteStream stream, unsigned char* data, size_t size
    ) except? 999999999:
        """READY, or the identity that stands in its place in ZMTP/2.0: a frame."""
        cdef size_t head = 2, length
        cdef int n
        cdef bint is_command
        cdef bytes body, peer = b"", kind = b""
        if size < 2:
            return 0
        is_command = stream.state == INTRODUCED
        if data[0] & ~LONG != (COMMAND if is_command else 0):
            self.end(stream, MALFORMED)
            return 0
        length = data[1]
        if data[0] & LONG:
            if size < 9:
                return 0
            length, head = 0, 9
            for n in range(8):
                if length > MAX_COMMAND:
                    break
                length = (length << 8) | data[1 + n]
        if length > MAX_COMMAND:
            self.end(stream, MALFORMED)
            return 0
        if size - head < length:
            return 0
        body = PyBytes_FromStringAndSize(<char*>data + head, <Py_ssize_t>length)
        if is_command:
            found = _properties(body)
            if found is None:
                self.end(stream, _refusal(body))
                return 0
            peer, kind = found
        else:
            peer = body
        why = MALFORMED if len(peer) > MAX_ID else self.opened(stream, peer, kind)
        if why is NOT_YET:
            return 0
        if why is not None:
            self.end(stream, why)
            return 0
        stream.state = OPEN
        self.told.append((GREETED_WELL, stream.fd, stream.peer, ""))
        return head + length


cdef object _properties(bytes body):
    """(identity, socket type) of a READY; None for anything else."""
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


cdef str _refusal(bytes body):
    """Why there is no READY. RFC 37: "error = command-size %d5 'ERROR' error-reason"; libzmq gives
    the status code of RFC 27 as the reason."""
    cdef bytes reason = body[7:]
    if body[:6] != b"\x05ERROR":
        return MALFORMED
    return f"{REFUSED}{reason.decode('ascii')}" if reason.isdigit() else f"{REFUSED}400"


def ready(bytes kind not None, bytes identity=b""):
    """The READY command of a socket of this type."""
    body = b"\x05READY\x0bSocket-Type" + len(kind).to_bytes(4) + kind
    body += b"\x08Identity" + len(identity).to_bytes(4) + identity
    return bytes([COMMAND, len(body)]) + body
