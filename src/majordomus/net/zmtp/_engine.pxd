# cython: language_level=3
from libc.stdint cimport uint64_t
from majordomus.net.zmtp._stream cimport ByteStream

cdef enum:
    EARLY = 48 * 1024  # bytes waiting in one batch that are sent before its end
    BROUGHT = 8 * 1024 * 1024  # bytes that are read before whoever receives has his turn
    SCRATCH = 128 * 1024
    MAX_ID = 255


cdef class Engine:
    cdef int epoll
    cdef unsigned char* scratch
    cdef size_t max_frames, max_bytes, max_message
    cdef size_t unfinished  # bytes of all messages that are not complete
    cdef size_t brought  # bytes that were read since whoever receives began
    cdef bint abandoned
    cdef bytes introduction  # our READY
    cdef bytes old_introduction  # ZMTP/2.0: our type and identity
    cdef list told  # for `news`

    cdef int deliver(self, ByteStream stream, list frames, list batch) except -1
    cdef str opened(self, ByteStream stream, bytes peer, bytes kind)
    cdef int ended(self, ByteStream stream, str why) except -1
    cdef int watch(self, int fd, int operation, bint to_read, bint to_write) except -1
    cdef int flush(self, ByteStream stream) except -1
    cdef int end(self, ByteStream stream, str why) except -1
    cdef int visit(self, ByteStream stream, list batch, Py_ssize_t most) except -1
    cdef int read(self, ByteStream stream, list batch, Py_ssize_t most) except -1
    cdef void count_unfinished(self, ByteStream stream) noexcept
    cdef bint read_large(self, ByteStream stream, list batch) except -1
    cdef int more_room(self, ByteStream stream) except -1
    cdef int end_large(self, ByteStream stream, list batch) except -1
    cdef int hold(self, ByteStream stream, unsigned char* data, size_t size) except -1
    cdef int take(self, ByteStream stream, unsigned char* data, size_t size, list batch, Py_ssize_t most) except -1
    cdef size_t parse(self, ByteStream stream, unsigned char* data, size_t size, list batch, Py_ssize_t most) except? 999999999
    cdef bint cuts(self, ByteStream stream, size_t length) except -1
    cdef size_t skipped(self, ByteStream stream, size_t size, list batch) except? 999999999
    cdef int begin_large(self, ByteStream stream, unsigned char* data, size_t here, size_t length, bint more) except -1
    cdef int add(self, ByteStream stream, object frame, bint more, list batch) except -1
    cdef int complete(self, ByteStream stream, list batch) except -1
    cdef int complete_cut(self, ByteStream stream, list batch) except -1
    cdef int command(self, ByteStream stream, unsigned char* data, size_t size) except -1
    cdef int begin(self, ByteStream stream) except -1
    cdef size_t greet(self, ByteStream stream, unsigned char* data, size_t size) except? 999999999
    cdef size_t undo(self, ByteStream stream, int state) noexcept
    cdef size_t signature(self, ByteStream stream, unsigned char* data, size_t size) except? 999999999
    cdef size_t greeting(self, ByteStream stream, unsigned char* data, size_t size) except? 999999999
    cdef size_t introduction_of(self, ByteStream stream, unsigned char* data, size_t size) except? 999999999
