# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""ZMTP 3.1 (RFC 37) over stream sockets, spoken in the caller's thread: the quick wire of plain TCP.

No rule of Majordomo is in it. libzmq has a thread of its own for its connections, and every message
crosses two queues and two wake-ups on its way there and back; here a message is bytes in a buffer.
Only the NULL mechanism is spoken: what is encrypted or asks for a password is libzmq's.
docs/adr/0011-own-zmtp.md tells why it is as it is. Linux alone has what it waits with (epoll).
"""

from majordomus.net.cut import Cut
from majordomus.net.wire import NO_FRAMES

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport (
    EAGAIN,
    ECONNABORTED,
    ECONNRESET,
    EHOSTUNREACH,
    EINPROGRESS,
    EINTR,
    EMFILE,
    ENFILE,
    ENOBUFS,
    ENOMEM,
    EPIPE,
    errno,
)
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset


cdef extern from "Python.h":
    int PyBytes_CheckExact(object)
    int _PyBytes_Resize(PyObject** bytes, Py_ssize_t newsize) except -1

cdef extern from "sys/epoll.h" nogil:
    enum:
        EPOLLIN
        EPOLLOUT
        EPOLL_CTL_ADD
        EPOLL_CTL_MOD
        EPOLL_CTL_DEL
        EPOLL_CLOEXEC
    ctypedef union epoll_data_t:
        int fd
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event* event)
    int epoll_wait(int epfd, epoll_event* events, int maxevents, int timeout)

cdef extern from "sys/uio.h" nogil:
    cdef struct iovec:
        void* iov_base
        size_t iov_len

cdef extern from "sys/socket.h" nogil:
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL
        SHUT_WR
        SHUT_RDWR
        SOCK_NONBLOCK
        SOCK_CLOEXEC
        SOL_SOCKET
        SO_ERROR
        AF_INET
        AF_INET6
    ctypedef unsigned int socklen_t
    cdef struct sockaddr:
        unsigned short sa_family
    cdef struct sockaddr_storage:
        unsigned short ss_family
    cdef struct msghdr:
        void* msg_name
        socklen_t msg_namelen
        iovec* msg_iov
        size_t msg_iovlen
        void* msg_control
        size_t msg_controllen
        int msg_flags
    ssize_t recv(int fd, void* buf, size_t len, int flags)
    ssize_t send(int fd, const void* buf, size_t len, int flags)
    ssize_t sendmsg(int fd, const msghdr* msg, int flags)
    int accept4(int fd, sockaddr* addr, socklen_t* addrlen, int flags)
    int getsockopt(int fd, int level, int optname, void* optval, socklen_t* optlen)
    int getsockname(int fd, sockaddr* address, socklen_t* size)
    int getpeername(int fd, sockaddr* address, socklen_t* size)
    int shutdown(int fd, int how)

cdef extern from "netinet/in.h" nogil:
    cdef struct in_addr:
        pass
    cdef struct in6_addr:
        pass
    cdef struct sockaddr_in:
        in_addr sin_addr
    cdef struct sockaddr_in6:
        in6_addr sin6_addr

cdef extern from "arpa/inet.h" nogil:
    const char* inet_ntop(int af, const void* src, char* dst, socklen_t size)

cdef extern from "unistd.h" nogil:
    int close(int fd)


# ── ZMTP, as RFC 37 has it ────────────────────────────────────────────────────────────────────────

cdef enum:
    # "flags = OCTET": a frame's first byte
    MORE = 0x01
    LONG = 0x02
    COMMAND = 0x04
    RESERVED = 0xF8
    SIGNATURE = 11  # with the major version: all that has to be known before the rest is said
    GREETING = 64
    MAX_COMMAND = 4096
    MAX_ID = 255
    DEALER_TYPE = 5  # ZMTP/2.0 (RFC 15): a socket's type is a number
    ROUTER_TYPE = 6

cdef enum:
    # of a connection
    CONNECTING
    SIGNED  # our signature is sent, theirs is awaited
    GREETED  # the rest of their greeting
    INTRODUCED  # their READY
    TYPED  # ZMTP/2.0: their socket type
    NAMED  # ZMTP/2.0: their identity
    OPEN
    ENDED

cdef bytes OUR_SIGNATURE = b"\xff\0\0\0\0\0\0\0\1\x7f\x03"
cdef bytes OUR_GREETING = b"\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
cdef bytes NULL_MECHANISM = b"NULL".ljust(20, b"\0")

cdef enum:
    SMALL = 4096  # larger frames are neither copied for sending nor on their way from the kernel
    SCRATCH = 128 * 1024
    PIECES = 64  # handed to the kernel at once
    EARLY = 48 * 1024  # bytes waiting in one batch that are sent before its end
    UNLOCKED = 64 * 1024  # more than so many bytes are sent without holding the GIL
    SHARE = 32  # messages of one connection before the others have their turn
    VISIT = 1024 * 1024  # bytes of it, the same
    BROUGHT = 8 * 1024 * 1024  # bytes of all before whoever receives has his
    FRAME = 64  # what a frame holds besides its bytes
    FIRST_ROOM = 64 * 1024
    FIRST_OUT = 4096
    EVENTS = 256
    ACCEPTED_AT_ONCE = 64
    ENDED_AT_ONCE = 64
    IDLE_ROOM = 16 * 1024  # a buffer for reading that is larger is given back when it is empty
    OUT_ROOM = 64 * 1024  # the same for writing

# What `news` tells; tcp_port.py and tcp_link.py read it.
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


cdef struct Piece:
    PyObject* owner  # whose bytes it is; NULL for bytes of the connection's own buffer
    char* data
    size_t size


cdef struct Out:
    # What is to be written to one connection. Who has nothing to write has none, so few of them
    # serve thousands of connections, and stay in the processor's cache.
    char* bytes
    size_t start, stop, room
    Piece* pieces
    int first_piece, last_piece, piece_room
    size_t* ends  # of messages, in bytes since the first of these was put here
    int first_end, last_end, end_room
    size_t queued, sent


cdef enum:
    SPARES = 64

cdef Out* spares[SPARES]
cdef int spare_count = 0


cdef Out* borrow() except NULL:
    """The caller holds the GIL, so does `give_back`."""
    global spare_count
    cdef Out* out
    if spare_count > 0:
        spare_count -= 1
        return spares[spare_count]
    out = <Out*>calloc(1, sizeof(Out))
    if out == NULL:
        raise MemoryError
    return out


cdef void give_back(Out* out) noexcept:
    """Whatever it still holds is dropped."""
    global spare_count
    cdef int n
    for n in range(out.first_piece, out.last_piece):
        if out.pieces[n].owner != NULL:
            Py_DECREF(<object>out.pieces[n].owner)
    out.start = out.stop = out.queued = out.sent = 0
    out.first_piece = out.last_piece = out.first_end = out.last_end = 0
    if spare_count < SPARES and out.room <= OUT_ROOM:
        spares[spare_count] = out
        spare_count += 1
        return
    free(out.bytes)
    free(out.pieces)
    free(out.ends)
    free(out)


cdef class Stream:
    """One connection: what is read and not yet a message, what is to be written."""

    cdef readonly int fd
    cdef int state
    cdef bint asks_to_write, dirty, deaf, stopped
    cdef bint queued  # for its turn
    cdef bint waiting  # for another turn with what is held: there are whole messages in it
    cdef bint more  # may be had of the kernel at once
    cdef readonly bytes peer
    cdef Out* out
    # read
    cdef unsigned char* held
    cdef size_t held_at, held_size, held_room
    cdef object first  # frame of a message that has more
    cdef list frames  # all of it, from the second on
    cdef size_t kept, dropped, skip, count
    cdef bint cutting, skip_more
    cdef PyObject* large
    cdef size_t large_at, large_room, large_size
    cdef bint large_more
    cdef size_t unfinished  # bytes, as the engine has counted them last
    cdef double began
    cdef readonly str host

    def __cinit__(self, int fd, double began, str host):
        self.fd, self.began, self.host = fd, began, host
        self.state = SIGNED

    def __dealloc__(self):
        if self.state != ENDED:
            close(self.fd)
        self.release()

    cdef void release(self) noexcept:
        """What is held of both directions."""
        if self.out != NULL:
            give_back(self.out)
            self.out = NULL
        free(self.held)
        self.held = NULL
        self.held_at = self.held_size = self.held_room = 0
        if self.large != NULL:
            Py_DECREF(<object>self.large)
            self.large = NULL
        self.first = self.frames = None

    # ── what is written ───────────────────────────────────────────────────────────────────────────

    cdef inline size_t unsent(self) noexcept:
        """Bytes that wait."""
        return 0 if self.out == NULL else self.out.queued - self.out.sent

    cdef inline int messages(self) noexcept:
        """How many messages wait, the one that is partly written included."""
        cdef Out* out = self.out
        if out == NULL:
            return 0
        while out.first_end < out.last_end and out.ends[out.first_end] <= out.sent:
            out.first_end += 1
        return out.last_end - out.first_end

    cdef int put_message(self, object frames) except -1:
        """All frames of one message. When it raises, nothing of it is left."""
        cdef list parts = frames if type(frames) is list else list(frames)
        cdef Py_ssize_t n, last = len(parts) - 1
        cdef object frame
        if last < 0:
            raise ValueError(NO_FRAMES)
        for n in range(last + 1):
            frame = parts[n]
            if not PyBytes_CheckExact(frame):
                parts = [one if type(one) is bytes else bytes(memoryview(one)) for one in parts]
                break
        if self.out == NULL:
            self.out = borrow()
        for n in range(last + 1):
            put_frame(self.out, parts[n], MORE if n < last else 0)
        return end_message(self.out)

    cdef int put_raw(self, bytes data) except -1:
        """Bytes that are no message: a greeting, a command."""
        cdef size_t size = <size_t>PyBytes_GET_SIZE(data)
        if self.out == NULL:
            self.out = borrow()
        reserve(self.out, size)
        memcpy(self.out.bytes + self.out.stop, PyBytes_AS_STRING(data), size)
        own(self.out, size)
        return 0

    cdef int write(self) noexcept:
        """Gives the kernel what it takes. 0; EAGAIN when something is left; or what went wrong."""
        cdef ssize_t taken
        cdef Out* out = self.out
        if out == NULL:
            return 0
        while out.first_piece < out.last_piece:
            taken = give(self.fd, out)
            if taken < 0:
                if errno == EINTR:
                    continue
                return EAGAIN if errno == EAGAIN or errno == ENOBUFS else errno
            took(out, <size_t>taken)
        give_back(out)
        self.out = NULL
        return 0


cdef int put_frame(Out* out, object frame, int flags) except -1:
    cdef size_t size = <size_t>PyBytes_GET_SIZE(frame)
    cdef unsigned char* head
    cdef int n
    reserve(out, 9 + (size if size <= SMALL else 0))
    head = <unsigned char*>out.bytes + out.stop
    if size <= 255:
        head[0] = <unsigned char>flags
        head[1] = <unsigned char>size
        memcpy(head + 2, PyBytes_AS_STRING(frame), size)
        own(out, 2 + size)
        return 0
    head[0] = <unsigned char>(flags | LONG)
    for n in range(8):
        head[1 + n] = <unsigned char>((<uint64_t>size >> (8 * (7 - n))) & 0xFF)
    if size <= SMALL:
        memcpy(head + 9, PyBytes_AS_STRING(frame), size)
        own(out, 9 + size)
        return 0
    own(out, 9)
    lend(out, frame)
    return 0


cdef int reserve(Out* out, size_t more) except -1:
    """Room for so many bytes, and for a piece."""
    cdef size_t room
    cdef char* larger
    if out.piece_room == out.last_piece:
        more_pieces(out)
    if out.room - out.stop >= more:
        return 0
    if out.start > out.room // 2 and out.room - (out.stop - out.start) >= more:
        memmove(out.bytes, out.bytes + out.start, out.stop - out.start)
        out.stop -= out.start
        out.start = 0
        return 0
    room = out.room or FIRST_OUT
    while room - out.stop < more:
        room *= 2
    larger = <char*>realloc(out.bytes, room)
    if larger == NULL:
        raise MemoryError
    out.bytes, out.room = larger, room
    return 0


cdef int more_pieces(Out* out) except -1:
    cdef Piece* larger
    if out.first_piece > out.piece_room // 2:
        out.last_piece -= out.first_piece
        memmove(out.pieces, out.pieces + out.first_piece, out.last_piece * sizeof(Piece))
        out.first_piece = 0
        return 0
    larger = <Piece*>realloc(out.pieces, (2 * out.piece_room + 4) * sizeof(Piece))
    if larger == NULL:
        raise MemoryError
    out.pieces, out.piece_room = larger, 2 * out.piece_room + 4
    return 0


cdef inline void own(Out* out, size_t size) noexcept:
    """So many bytes more stand in the buffer; there is room for a piece."""
    out.stop += size
    out.queued += size
    if out.last_piece > out.first_piece and out.pieces[out.last_piece - 1].owner == NULL:
        out.pieces[out.last_piece - 1].size += size
        return
    out.pieces[out.last_piece].owner = NULL
    out.pieces[out.last_piece].size = size
    out.last_piece += 1


cdef int lend(Out* out, object frame) except -1:
    """A frame that is written from where it is."""
    cdef Piece* piece
    if out.piece_room == out.last_piece:
        more_pieces(out)
    piece = &out.pieces[out.last_piece]
    piece.owner, piece.data = <PyObject*>frame, PyBytes_AS_STRING(frame)
    piece.size = <size_t>PyBytes_GET_SIZE(frame)
    Py_INCREF(frame)
    out.last_piece += 1
    out.queued += piece.size
    return 0


cdef int end_message(Out* out) except -1:
    cdef size_t* larger
    if out.last_end == out.end_room:
        if out.first_end > out.end_room // 2:
            out.last_end -= out.first_end
            memmove(out.ends, out.ends + out.first_end, out.last_end * sizeof(size_t))
            out.first_end = 0
        else:
            larger = <size_t*>realloc(out.ends, (2 * out.end_room + 64) * sizeof(size_t))
            if larger == NULL:
                raise MemoryError
            out.ends, out.end_room = larger, 2 * out.end_room + 64
    out.ends[out.last_end] = out.queued
    out.last_end += 1
    return 0


cdef ssize_t give(int fd, Out* out) noexcept:
    """One system call: as many pieces as it takes."""
    cdef iovec[PIECES] vector
    cdef msghdr header
    cdef Piece* piece = &out.pieces[out.first_piece]
    cdef int n, count = out.last_piece - out.first_piece
    cdef char* at = out.bytes + out.start
    cdef ssize_t taken
    if count == 1 and piece.owner == NULL and piece.size <= UNLOCKED:
        return send(fd, at, piece.size, MSG_DONTWAIT | MSG_NOSIGNAL)
    if count > PIECES:
        count = PIECES
    for n in range(count):
        piece = &out.pieces[out.first_piece + n]
        vector[n].iov_len = piece.size
        if piece.owner == NULL:
            vector[n].iov_base = at
            at += piece.size
        else:
            vector[n].iov_base = piece.data
    memset(&header, 0, sizeof(header))
    header.msg_iov = vector
    header.msg_iovlen = <size_t>count
    with nogil:
        taken = sendmsg(fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL)
    return taken


cdef void took(Out* out, size_t size) noexcept:
    """The kernel has taken so many bytes."""
    cdef Piece* one
    cdef size_t part
    out.sent += size
    while size > 0:
        one = &out.pieces[out.first_piece]
        part = size if size < one.size else one.size
        size -= part
        one.size -= part
        if one.owner == NULL:
            out.start += part
        else:
            one.data += part
        if one.size > 0:
            return
        if one.owner != NULL:
            Py_DECREF(<object>one.owner)
        out.first_piece += 1


cdef class _Engine:
    """Reads and writes streams. What a message is handed to, and what an end means, is said by who
    inherits.
    """

    cdef int epoll
    cdef unsigned char* scratch
    cdef size_t max_frames, max_bytes, max_message
    cdef size_t unfinished  # bytes of all messages that are not complete
    cdef size_t brought  # bytes that were read since whoever receives began
    cdef bint abandoned
    cdef bytes introduction  # our READY
    cdef bytes old_introduction  # ZMTP/2.0: our type and identity
    cdef list told  # for `news`

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

    cdef int deliver(self, Stream stream, list frames, list batch) except -1:
        raise NotImplementedError

    cdef str opened(self, Stream stream, bytes peer, bytes kind):
        """The handshake is done; the result is why the peer is turned away, or None."""
        raise NotImplementedError

    cdef int ended(self, Stream stream, str why) except -1:
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

    cdef int flush(self, Stream stream) except -1:
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

    cdef int end(self, Stream stream, str why) except -1:
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

    cdef int visit(self, Stream stream, list batch, Py_ssize_t most) except -1:
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

    cdef int read(self, Stream stream, list batch, Py_ssize_t most) except -1:
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

    cdef inline void count_unfinished(self, Stream stream) noexcept:
        """After a visit: what is held of a message that is not complete."""
        cdef size_t now_held = stream.held_size + stream.kept - stream.dropped
        now_held += stream.count * FRAME
        if stream.state == ENDED:
            return
        if stream.large != NULL:
            now_held += stream.large_at - stream.large_size
        self.unfinished += now_held - stream.unfinished
        stream.unfinished = now_held

    cdef bint read_large(self, Stream stream, list batch) except -1:
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
                PyBytes_AS_STRING(<object>stream.large) + stream.large_at,
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

    cdef int more_room(self, Stream stream) except -1:
        """Grows as it fills: what a peer only announces takes no memory."""
        cdef size_t room = 2 * stream.large_room
        if room > stream.large_size:
            room = stream.large_size
        _PyBytes_Resize(&stream.large, <Py_ssize_t>room)
        stream.large_room = room
        return 0

    cdef int end_large(self, Stream stream, list batch) except -1:
        cdef object frame = <object>stream.large
        Py_DECREF(frame)  # the reference that `large` held is `frame`'s own now
        stream.large = NULL
        return self.add(stream, frame, stream.large_more, batch)

    cdef int hold(self, Stream stream, unsigned char* data, size_t size) except -1:
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
        self, Stream stream, unsigned char* data, size_t size, list batch, Py_ssize_t most
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
        self, Stream stream, unsigned char* data, size_t size, list batch, Py_ssize_t most
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

    cdef bint cuts(self, Stream stream, size_t length) except -1:
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

    cdef size_t skipped(self, Stream stream, size_t size, list batch) except? 999999999:
        """So many bytes of a frame that is not kept are here; how many are the frame's."""
        if size > stream.skip:
            size = stream.skip
        stream.skip -= size
        if stream.skip == 0 and not stream.skip_more:
            self.complete_cut(stream, batch)
        return size

    cdef int begin_large(
        self, Stream stream, unsigned char* data, size_t here, size_t length, bint more
    ) except -1:
        cdef size_t room = length if length < FIRST_ROOM else FIRST_ROOM
        cdef object made
        while room < here:
            room *= 2
        if room > length:
            room = length
        made = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>room)
        memcpy(PyBytes_AS_STRING(made), data, here)
        Py_INCREF(made)
        stream.large = <PyObject*>made
        stream.large_at, stream.large_room, stream.large_size = here, room, length
        stream.large_more = more
        return 0

    cdef inline int add(self, Stream stream, object frame, bint more, list batch) except -1:
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

    cdef int complete(self, Stream stream, list batch) except -1:
        cdef list frames = stream.frames
        stream.frames = None
        stream.kept = stream.dropped = stream.count = 0
        return self.deliver(stream, frames, batch)

    cdef int complete_cut(self, Stream stream, list batch) except -1:
        """What was dropped is known by its size."""
        if stream.frames is None:
            stream.frames = [] if stream.first is None else [stream.first]
            stream.first = None
        stream.frames.append(Cut(stream.dropped))
        stream.cutting = False
        return self.complete(stream, batch)

    cdef int command(self, Stream stream, unsigned char* data, size_t size) except -1:
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

    cdef int begin(self, Stream stream) except -1:
        """RFC 37: "each peer SHALL send a greeting"; the first part of it, so that a peer of an
        older version finds nothing that it would misread."""
        stream.state = SIGNED
        stream.put_raw(OUR_SIGNATURE)
        return self.flush(stream)

    cdef size_t greet(self, Stream stream, unsigned char* data, size_t size) except? 999999999:
        """How many of these bytes are dealt with; 0 when more are needed."""
        if stream.state == SIGNED:
            return self.signature(stream, data, size)
        if stream.state == GREETED:
            return self.greeting(stream, data, size)
        if stream.state == TYPED:
            stream.state = NAMED
            return 1 if size else self.undo(stream, TYPED)
        return self.introduction_of(stream, data, size)

    cdef size_t undo(self, Stream stream, int state) noexcept:
        stream.state = state
        return 0

    cdef size_t signature(self, Stream stream, unsigned char* data, size_t size) except? 999999999:
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

    cdef size_t greeting(self, Stream stream, unsigned char* data, size_t size) except? 999999999:
        """RFC 37: "a peer SHALL NOT assume" another mechanism; both have to be the same."""
        if size < GREETING - SIGNATURE:
            return 0
        if memcmp(data + 1, PyBytes_AS_STRING(NULL_MECHANISM), 20) != 0:
            self.end(stream, ANOTHER_MECHANISM)
            return 0
        stream.put_raw(self.introduction)
        stream.state = INTRODUCED
        self.flush(stream)
        return GREETING - SIGNATURE

    cdef size_t introduction_of(
        self, Stream stream, unsigned char* data, size_t size
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


# ── many connections, as a ROUTER ─────────────────────────────────────────────────────────────────

cdef class TcpRouter(_Engine):
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

    cdef list by_fd  # Stream at the index of its descriptor
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
        import collections

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
        cdef Stream stream
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
            stream = <Stream>one
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
        cdef Stream stream
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
            stream = <Stream>self.queue[self.head]
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
        cdef Stream largest = None, stream
        for one in self.by_fd:
            if one is None:
                continue
            stream = <Stream>one
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
        cdef Stream stream = Stream(fd, self.now, host)
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
        cdef Stream stream
        cdef int ended = 0
        while self.young:
            stream = <Stream>self.young[0]
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
        cdef Stream stream
        cdef list stopped = []
        try:
            for n in range(len(batch)):
                one = <tuple>batch[n]
                found = self.by_peer.get(one[0])
                if found is None:
                    refused.append((n, EHOSTUNREACH))
                    continue
                stream = <Stream>found
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
                    stream.dirty = True
                    dirty.append(stream)
                elif stream.unsent() > EARLY and not stream.asks_to_write:
                    self.flush(stream)
                    stream.dirty = True
        finally:
            for stream in dirty:
                self.flush(stream)
            for stream in stopped:
                stream.stopped = False
        return refused

    cdef inline bint is_full(self, Stream stream) except -1:
        if not self.holds_much(stream):
            return False
        self.flush(stream)
        return self.holds_much(stream)

    cdef inline bint holds_much(self, Stream stream) noexcept:
        if self.max_unsent and stream.unsent() >= self.max_unsent:
            return True
        return stream.messages() >= self.hwm

    def knows(self, bytes peer not None):
        """Whether there is a connection of this routing id."""
        return peer in self.by_peer

    def cut(self, int fd):
        """Ends a connection; `news` does not tell. May be repeated."""
        if 0 <= fd < len(self.by_fd) and self.by_fd[fd] is not None:
            stream = <Stream>self.by_fd[fd]
            told = len(self.told)
            shutdown(fd, SHUT_RDWR)
            self.end(stream, "")
            self.leaving.discard(stream.peer)
            del self.told[told:]

    def unsent(self):
        """How many connections have something that the kernel has not taken yet."""
        return sum((<Stream>one).out != NULL for one in self.by_fd if one is not None)

    def finish(self):
        """Says that nothing more will come, where everything is written."""
        cdef Stream stream
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
                self.end(<Stream>one, "")
        self.told.clear()

    cdef int deliver(self, Stream stream, list frames, list batch) except -1:
        batch.append((stream.peer, frames))
        return 0

    cdef str opened(self, Stream stream, bytes peer, bytes kind):
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

    cdef int ended(self, Stream stream, str why) except -1:
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


# ── one connection, as a DEALER ───────────────────────────────────────────────────────────────────

cdef class TcpDealer(_Engine):
    """What a DEALER with one connection and IMMEDIATE is: `fd` is of a socket that does not block
    and is being connected; it is closed with this. `hwm` messages wait at most.

    It belongs to one thread at a time. Whenever `self.fd` is readable, `receive` has something to do.
    """

    cdef Stream stream
    cdef int hwm, extra

    def __init__(self, int fd, bytes identity not None, *, int hwm=1000):
        self.hwm, self.extra = hwm, -1
        self.introduction = ready(b"DEALER", identity)
        self.old_introduction = bytes([DEALER_TYPE, 0, len(identity)]) + identity
        self.watch(fd, EPOLL_CTL_ADD, False, True)
        self.stream = Stream(fd, 0.0, "")  # from here on the descriptor is ours
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
        cdef Stream stream = self.stream
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
        cdef Stream stream = self.stream
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
        cdef Stream stream = self.stream
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

    cdef int deliver(self, Stream stream, list frames, list batch) except -1:
        batch.append(frames)
        return 0

    cdef str opened(self, Stream stream, bytes peer, bytes kind):
        return None if kind in (b"", b"REP", b"DEALER", b"ROUTER") else MALFORMED

    cdef int ended(self, Stream stream, str why) except -1:
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
