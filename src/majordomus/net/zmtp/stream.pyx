# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The buffers of one connection: unparsed input, and output that is not written yet.

Frames become bytes here; `engine` parses bytes into frames.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EAGAIN, EINTR, ENOBUFS, errno
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memmove, memset
from majordomus.net.zmtp.boxes cimport (
    BOX_COMMAND,
    BOX_HEAD,
    BOX_MORE,
    BUNDLE_HEAD,
    LONG_HEAD,
    Boxes,
)
from majordomus.net.zmtp.bytes_access cimport bytes_of, size_of
from majordomus.net.zmtp.posix cimport (
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    SHUT_RDWR,
    close,
    iovec,
    msghdr,
    send,
    sendmsg,
    shutdown,
)

cdef extern from "Python.h":
    int PyBytes_CheckExact(object)

cdef enum:
    PIECES = 64  # of one sendmsg
    UNLOCKED = 64 * 1024  # above this size one send releases the GIL
    FIRST_CAPACITY = 4096
    MAX_IDLE_CAPACITY = 64 * 1024  # a larger buffer is freed when it is empty
    BUNDLE_SIZE = 16 * 1024  # bytes of frames in one bundle, at most


NO_FRAMES = "a message has at least one frame: one that was begun could not be ended"


# ── output ────────────────────────────────────────────────────────────────────────────────────────

cdef enum:
    FREE_BUFFERS = 224
    FREE_LARGE = 64  # of them, those that may have more than FREE_CAPACITY
    FREE_CAPACITY = 16 * 1024

cdef OutBuffer* free_buffers[FREE_BUFFERS]
cdef int free_count = 0


cdef OutBuffer* take_buffer() except NULL:
    """Take a free buffer, or make one. The GIL protects the list of free buffers."""
    global free_count
    cdef OutBuffer* out
    if free_count > 0:
        free_count -= 1
        return free_buffers[free_count]
    out = <OutBuffer*>calloc(1, sizeof(OutBuffer))
    if out == NULL:
        raise MemoryError
    return out


cdef void return_buffer(OutBuffer* out) noexcept:
    """Drop what a buffer still holds, and keep it for the next connection."""
    global free_count
    cdef int n
    for n in range(out.first_piece, out.last_piece):
        if out.pieces[n].owner != NULL:
            Py_DECREF(<object>out.pieces[n].owner)
    out.start = out.stop = out.queued = out.sent = 0
    out.first_piece = out.last_piece = out.first_end = out.last_end = 0
    if free_count < FREE_BUFFERS and out.capacity <= (
        MAX_IDLE_CAPACITY if free_count < FREE_LARGE else FREE_CAPACITY
    ):
        free_buffers[free_count] = out
        free_count += 1
        return
    free(out.bytes)
    free(out.pieces)
    free(out.ends)
    free(out)


cdef int put_frame(OutBuffer* out, object frame, int flags) except -1:
    """Append one frame: a small one is copied, a large one is referenced."""
    cdef size_t size = <size_t>size_of(frame)
    cdef unsigned char* head
    cdef int n
    reserve(out, 9 + (size if size <= SMALL else 0))
    head = <unsigned char*>out.bytes + out.stop
    if size <= 255:
        head[0] = <unsigned char>flags
        head[1] = <unsigned char>size
        memcpy(head + 2, bytes_of(frame), size)
        append_copied(out, 2 + size)
        return 0
    head[0] = <unsigned char>(flags | LONG)
    for n in range(8):
        head[1 + n] = <unsigned char>((<uint64_t>size >> (8 * (7 - n))) & 0xFF)
    if size <= SMALL:
        memcpy(head + 9, bytes_of(frame), size)
        append_copied(out, 9 + size)
        return 0
    append_copied(out, 9)
    append_reference(out, frame)
    return 0


cdef int put_box(OutBuffer* out, Boxes boxes, object frame, unsigned char flags) except -1:
    """Append one frame, encrypted: in the buffer if it is small, else in memory of its own."""
    cdef size_t size = <size_t>size_of(frame), length = size + BOX_HEAD
    cdef object made
    length += 2 if length <= 255 else LONG_HEAD
    if size > SMALL:
        made = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>length)
        boxes.write_frame(
            <unsigned char*>bytes_of(made), flags, <unsigned char*>bytes_of(frame), size
        )
        append_reference(out, made)
        return 0
    reserve(out, length)
    boxes.write_frame(
        <unsigned char*>out.bytes + out.stop, flags, <unsigned char*>bytes_of(frame), size
    )
    append_copied(out, length)
    return 0


cdef int reserve(OutBuffer* out, size_t more) except -1:
    """Make room for `more` bytes and for one piece."""
    cdef size_t room
    cdef char* larger
    if out.piece_capacity == out.last_piece:
        grow_pieces(out)
    if out.capacity - out.stop >= more:
        return 0
    if out.start > out.capacity // 2 and out.capacity - (out.stop - out.start) >= more:
        memmove(out.bytes, out.bytes + out.start, out.stop - out.start)
        out.stop -= out.start
        out.start = 0
        return 0
    room = out.capacity or FIRST_CAPACITY
    while room - out.stop < more:
        room *= 2
    larger = <char*>realloc(out.bytes, room)
    if larger == NULL:
        raise MemoryError
    out.bytes, out.capacity = larger, room
    return 0


cdef int grow_pieces(OutBuffer* out) except -1:
    cdef StreamPart* larger
    if out.first_piece > out.piece_capacity // 2:
        out.last_piece -= out.first_piece
        memmove(out.pieces, out.pieces + out.first_piece, out.last_piece * sizeof(StreamPart))
        out.first_piece = 0
        return 0
    larger = <StreamPart*>realloc(out.pieces, (2 * out.piece_capacity + 4) * sizeof(StreamPart))
    if larger == NULL:
        raise MemoryError
    out.pieces, out.piece_capacity = larger, 2 * out.piece_capacity + 4
    return 0


cdef inline void append_copied(OutBuffer* out, size_t size) noexcept:
    """Count bytes that were copied to the end of the buffer; `reserve` made room for a piece."""
    out.stop += size
    out.queued += size
    if out.last_piece > out.first_piece and out.pieces[out.last_piece - 1].owner == NULL:
        out.pieces[out.last_piece - 1].size += size
        return
    out.pieces[out.last_piece].owner = NULL
    out.pieces[out.last_piece].size = size
    out.last_piece += 1


cdef int append_reference(OutBuffer* out, object frame) except -1:
    """Append a frame that is written from its own memory."""
    cdef StreamPart* piece
    if out.piece_capacity == out.last_piece:
        grow_pieces(out)
    piece = &out.pieces[out.last_piece]
    piece.owner, piece.data = <PyObject*>frame, bytes_of(frame)
    piece.size = <size_t>size_of(frame)
    Py_INCREF(frame)
    out.last_piece += 1
    out.queued += piece.size
    return 0


cdef int mark_message_end(OutBuffer* out) except -1:
    """Note that a message ends here; `ByteStream.messages` counts by it."""
    cdef size_t* larger
    if out.last_end == out.end_capacity:
        if out.first_end > out.end_capacity // 2:
            out.last_end -= out.first_end
            memmove(out.ends, out.ends + out.first_end, out.last_end * sizeof(size_t))
            out.first_end = 0
        else:
            larger = <size_t*>realloc(out.ends, (2 * out.end_capacity + 64) * sizeof(size_t))
            if larger == NULL:
                raise MemoryError
            out.ends, out.end_capacity = larger, 2 * out.end_capacity + 64
    out.ends[out.last_end] = out.queued
    out.last_end += 1
    return 0


cdef ssize_t write_pieces(int fd, OutBuffer* out) noexcept:
    """Write as many pieces as one system call takes. Returns the bytes, or -1 with errno set."""
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


cdef void remove_written(OutBuffer* out, size_t size) noexcept:
    """Remove bytes that the kernel has taken."""
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
    """One connection; its fields are described in the .pxd."""

    def __cinit__(self, int fd, double began):
        self.fd, self.began = fd, began
        self.state = AWAIT_SIGNATURE

    def __dealloc__(self):
        if self.state != ENDED:
            close(self.fd)
        self.release()

    cdef void release(self) noexcept:
        """Free the buffers of both directions."""
        if self.out != NULL:
            return_buffer(self.out)
            self.out = NULL
        free(self.input)
        self.input = NULL
        self.input_at = self.input_size = self.input_capacity = 0
        if self.large != NULL:
            Py_DECREF(<object>self.large)
            self.large = NULL
        self.first = self.frames = None
        self.mechanism, self.boxes = None, None  # they overwrite their keys

    cdef size_t unsent(self) noexcept:
        """Return the number of unsent bytes."""
        return 0 if self.out == NULL else self.out.queued - self.out.sent

    cdef int messages(self) noexcept:
        """Return the number of unsent messages, a partly written one included."""
        cdef OutBuffer* out = self.out
        if out == NULL:
            return 0
        while out.first_end < out.last_end and out.ends[out.first_end] <= out.sent:
            out.first_end += 1
        return out.last_end - out.first_end

    cdef int put_message(self, object frames) except -1:
        """Append one message. When it raises, nothing was appended."""
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
        if self.boxes is not None:
            return self.put_boxes(parts)
        if self.out == NULL:
            self.out = take_buffer()
        for n in range(last + 1):
            put_frame(self.out, parts[n], MORE if n < last else 0)
        return mark_message_end(self.out)

    cdef int put_boxes(self, list parts) except -1:
        """Append one message, encrypted."""
        cdef Py_ssize_t n, last = len(parts) - 1
        cdef unsigned char flags
        if not self.can_seal():
            return 0
        if self.out == NULL:
            self.out = take_buffer()
        for n in range(last + 1):
            flags = BOX_MORE if n < last else 0
            if not self.boxes.bundles:
                put_box(self.out, self.boxes, parts[n], flags)
            elif size_of(parts[n]) <= SMALL:
                self.put_bundled(parts[n], flags)
            else:
                self.close_bundle()
                put_box(self.out, self.boxes, parts[n], flags)
        return mark_message_end(self.out)

    cdef int put_bundled(self, object frame, int flags) except -1:
        """Append a frame to the open bundle, or begin one. It is encrypted by `close_bundle`."""
        cdef size_t size = <size_t>size_of(frame) + (2 if size_of(frame) <= 255 else LONG_HEAD)
        cdef size_t queued
        if self.boxes.open_size + size > BUNDLE_SIZE:
            self.close_bundle()
        if self.boxes.open_size == 0:
            reserve(self.out, BUNDLE_HEAD + size)
            memset(self.out.bytes + self.out.stop, 0, BUNDLE_HEAD)
            append_copied(self.out, BUNDLE_HEAD)
        queued = self.out.queued
        put_frame(self.out, frame, flags)
        self.boxes.open_size += self.out.queued - queued
        return 0

    cdef void close_bundle(self) noexcept:
        """Encrypt the open bundle, where it is. May be repeated."""
        cdef size_t size = self.boxes.open_size
        if size:
            self.boxes.write_bundle(
                <unsigned char*>self.out.bytes + self.out.stop - size - BUNDLE_HEAD, size
            )
            self.boxes.open_size = 0

    cdef bint can_seal(self) noexcept:
        """Whether another box may be sealed; else nothing more is written.

        Without nonces the connection is shut, so that it ends. In a child after a fork it is the
        parent's, and is left alone.
        """
        if self.boxes.usable():
            return True
        if self.boxes.exhausted() and not self.write_failed:
            shutdown(self.fd, SHUT_RDWR)
        self.write_failed = True
        return False

    cdef int put_command(self, bytes body) except -1:
        """Append a command, of at most 200 bytes."""
        cdef size_t size = <size_t>size_of(body)
        if self.boxes is None:
            return self.put_raw(bytes([COMMAND, size]) + body)
        if not self.can_seal():
            return 0
        if self.out == NULL:
            self.out = take_buffer()
        self.close_bundle()
        return put_box(self.out, self.boxes, body, BOX_COMMAND)

    cdef int put_raw(self, bytes data) except -1:
        """Append bytes that are not a message: a greeting or a command."""
        cdef size_t size = <size_t>size_of(data)
        if not size:  # an empty piece would never be written
            return 0
        if self.out == NULL:
            self.out = take_buffer()
        reserve(self.out, size)
        memcpy(self.out.bytes + self.out.stop, bytes_of(data), size)
        append_copied(self.out, size)
        return 0

    cdef int write(self) noexcept:
        """Write what the kernel takes.

        Returns 0 when all is written, EAGAIN when some is left, or the errno of a failure.
        """
        cdef ssize_t taken
        cdef OutBuffer* out = self.out
        if out == NULL:
            return 0
        if self.boxes is not None and self.boxes.open_size:
            self.close_bundle()
        while out.first_piece < out.last_piece:
            taken = write_pieces(self.fd, out)
            if taken < 0:
                if errno == EINTR:
                    continue
                return EAGAIN if errno == EAGAIN or errno == ENOBUFS else errno
            remove_written(out, <size_t>taken)
        return_buffer(out)
        self.out = NULL
        return 0
