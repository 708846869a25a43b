# cython: language_level=3
from cpython.object cimport PyObject

cdef enum:
    # "flags = OCTET" (RFC 37): a frame's first byte
    MORE = 0x01
    LONG = 0x02
    COMMAND = 0x04
    RESERVED = 0xF8

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

cdef enum:
    SMALL = 4096  # larger frames are neither copied for sending nor on their way from the kernel


cdef struct StreamPart:
    PyObject* owner  # whose bytes it is; NULL for bytes of the connection's own buffer
    char* data
    size_t size


cdef struct Out:
    # What is to be written to one connection. Who has nothing to write has none, so few of them
    # serve thousands of connections, and stay in the processor's cache.
    char* bytes
    size_t start, stop, room
    StreamPart* pieces
    int first_piece, last_piece, piece_room
    size_t* ends  # of messages, in bytes since the first of these was put here
    int first_end, last_end, end_room
    size_t queued, sent


cdef class ByteStream:
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

    cdef void release(self) noexcept
    cdef size_t unsent(self) noexcept
    cdef int messages(self) noexcept
    cdef int put_message(self, object frames) except -1
    cdef int put_raw(self, bytes data) except -1
    cdef int write(self) noexcept
