# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""One connection of our own ZMTP: what is read and not yet a message, and what is to be written.

Frames become bytes here. What the bytes mean is said by _zmtp.pyx.
"""

from majordomus.net.zmq._pure import NO_FRAMES

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EAGAIN, EINTR, ENOBUFS, errno
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memmove, memset
from majordomus.net.zmtp._octets cimport bytes_of, size_of
from majordomus.net.zmtp._posix cimport (
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    close,
    iovec,
    msghdr,
    send,
    sendmsg,
)

cdef extern from "Python.h":
    int PyBytes_CheckExact(object)

cdef enum:
    PIECES = 64  # handed to the kernel at once
    UNLOCKED = 64 * 1024  # more than so many bytes are sent without holding the GIL
    FIRST_OUT = 4096
    OUT_ROOM = 64 * 1024  # a buffer that is larger is given back when it is empty


# ── what waits to be written ──────────────────────────────────────────────────────────────────────

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


cdef int put_frame(Out* out, object frame, int flags) except -1:
    cdef size_t size = <size_t>size_of(frame)
    cdef unsigned char* head
    cdef int n
    reserve(out, 9 + (size if size <= SMALL else 0))
    head = <unsigned char*>out.bytes + out.stop
    if size <= 255:
        head[0] = <unsigned char>flags
        head[1] = <unsigned char>size
        memcpy(head + 2, bytes_of(frame), size)
        own(out, 2 + size)
        return 0
    head[0] = <unsigned char>(flags | LONG)
    for n in range(8):
        head[1 + n] = <unsigned char>((<uint64_t>size >> (8 * (7 - n))) & 0xFF)
    if size <= SMALL:
        memcpy(head + 9, bytes_of(frame), size)
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
    cdef StreamPart* larger
    if out.first_piece > out.piece_room // 2:
        out.last_piece -= out.first_piece
        memmove(out.pieces, out.pieces + out.first_piece, out.last_piece * sizeof(StreamPart))
        out.first_piece = 0
        return 0
    larger = <StreamPart*>realloc(out.pieces, (2 * out.piece_room + 4) * sizeof(StreamPart))
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
    cdef StreamPart* piece
    if out.piece_room == out.last_piece:
        more_pieces(out)
    piece = &out.pieces[out.last_piece]
    piece.owner, piece.data = <PyObject*>frame, bytes_of(frame)
    piece.size = <size_t>size_of(frame)
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
    cdef StreamPart* piece = &out.pieces[out.first_piece]
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
    cdef StreamPart* one
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


# ── a connection ──────────────────────────────────────────────────────────────────────────────────

cdef class ByteStream:
    """One connection: what is read and not yet a message, what is to be written."""

    def __cinit__(self, int fd, double began):
        self.fd, self.began = fd, began
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

    cdef size_t unsent(self) noexcept:
        """Bytes that wait."""
        return 0 if self.out == NULL else self.out.queued - self.out.sent

    cdef int messages(self) noexcept:
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
        cdef size_t size = <size_t>size_of(data)
        if self.out == NULL:
            self.out = borrow()
        reserve(self.out, size)
        memcpy(self.out.bytes + self.out.stop, bytes_of(data), size)
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
