# cython: language_level=3
from libc.stdint cimport uint64_t
from majordomus.net.zmtp.boxes cimport Boxes

cpdef enum:
    # stages of a handshake
    WORKING  # the next command of the peer is to come
    ASKING  # the credentials of the peer are to be checked
    DONE  # nothing is missing but `finish`
    FAILED

cdef enum:
    MAX_COMMAND = 4096


cdef class Mechanism:
    cdef readonly bytes name  # as the greeting holds it
    cdef readonly bint as_server
    cdef readonly bint strict  # the peer sends nothing before it is answered
    cdef readonly int stage
    cdef readonly str failure  # the reason, once `stage` is FAILED
    cdef readonly tuple credentials  # of the peer, while `stage` is ASKING
    cdef readonly bytes identity, kind  # of the peer: routing id and socket type
    cdef readonly bint bundles  # the peer reads bundles
    cdef bytes own  # our metadata
    cdef bytes error_name  # what an ERROR begins with
    cdef readonly Boxes boxes  # of the connection, once `stage` is DONE; None without encryption
    cdef readonly int cost  # scalar multiplications of the next command
    cdef readonly size_t longest  # bytes of the next command

    cpdef bytes begin(self)
    cpdef bytes receive(self, bytes command, double now)
    cpdef bytes decide(self, int status)
    cpdef bytes finish(self)
    cdef bytes accepted(self)
    cdef bytes fail(self, str why)
    cdef bint read_metadata(self, const unsigned char* data, size_t size) except -1


cdef class CurveKeys:
    cdef unsigned char[32] public
    cdef unsigned char[32] secret
    cdef unsigned char[32] cookie_key
    cdef unsigned char[32] previous_key
    cdef double since, previous_until
    cdef bint has_previous
    cdef object random
    cdef int fill(self, unsigned char* out, size_t size) except -1
    cdef int rotate(self, double now) except -1
    cdef int write_cookie(self, unsigned char* out, const unsigned char* text, double now) except -1
    cdef bint read_cookie(self, unsigned char* text, const unsigned char* cookie, double now) except -1
