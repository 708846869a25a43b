# cython: language_level=3
from libc.stdint cimport uint64_t

cdef enum:
    BOX_HEAD = 33  # bytes of a MESSAGE besides its text: name, nonce, MAC, flags
    LONG_HEAD = 9  # of a frame
    BUNDLE_HEAD = LONG_HEAD + BOX_HEAD
    # flags inside a box
    BOX_MORE = 0x01
    BOX_COMMAND = 0x02
    BOX_BUNDLE = 0x40


cdef class Boxes:
    cdef unsigned char[32] send_key
    cdef unsigned char[32] receive_key
    cdef uint64_t sent, received  # nonces of the last box of each direction
    cdef readonly bint bundles  # both peers can read bundles
    cdef int generation
    # A bundle that is read.
    cdef bytes rest  # its frames
    cdef size_t rest_at  # those before this place were delivered
    # A bundle that is written: it is at the end of the output, and not encrypted yet.
    cdef size_t open_size  # 0 when there is none
    # A box that is dropped, and checked nevertheless.
    cdef void* state
    cdef unsigned char[16] mac

    cdef void begin(self, const unsigned char* key, const unsigned char* send, const unsigned char* receive, uint64_t sent, uint64_t received) noexcept
    cdef bint usable(self) noexcept
    cdef bint exhausted(self) noexcept
    cdef size_t write_frame(self, unsigned char* at, unsigned char flags, const unsigned char* text, size_t size) noexcept
    cdef void write_bundle(self, unsigned char* at, size_t size) noexcept
    cdef bint is_next(self, const unsigned char* body) noexcept
    cdef bytes open(self, const unsigned char* body, size_t size, unsigned char* flags)
    cdef unsigned char begin_check(self, const unsigned char* body) except? 255
    cdef void check(self, const unsigned char* data, size_t size) noexcept
    cdef bint checked(self) noexcept
    cdef void* aligned(self) noexcept


cdef uint64_t read_nonce(const unsigned char* at) noexcept
cdef void write_nonce(unsigned char* at, uint64_t nonce) noexcept
