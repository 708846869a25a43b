# The function of sums.py in C, for what is compiled. sums.py itself is not.
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memcpy
from majordomus.protocol.octets cimport put4, put8


cdef enum:
    HEAD = 56  # a number, three times, six lengths


cdef inline unsigned char* _put_time(unsigned char* at, double time) noexcept:
    cdef unsigned long long word
    memcpy(&word, &time, 8)
    put8(at, word)
    return at + 8


cdef inline unsigned char* _put_length(unsigned char* at, size_t length) noexcept:
    put4(at, <unsigned int>length)
    return at + 4


cdef inline unsigned char* _put_text(unsigned char* at, bytes text, size_t length) noexcept:
    memcpy(at, PyBytes_AS_STRING(text), length)
    return at + length


cdef inline bytes constant_part(
    long long number,
    double accepted,
    double expires,
    double keep,
    bytes owner,
    bytes service,
    bytes called,
    bytes key,
    bytes digest,
    bytes metadata,
):
    cdef size_t a = len(owner), b = len(service), c = len(called)
    cdef size_t d = len(key), e = len(digest), f = len(metadata)
    cdef bytes made = PyBytes_FromStringAndSize(NULL, HEAD + a + b + c + d + e + f)
    cdef unsigned char* at = <unsigned char*>PyBytes_AS_STRING(made)
    put8(at, <unsigned long long>number)
    at = _put_time(_put_time(_put_time(at + 8, accepted), expires), keep)
    at = _put_length(_put_length(_put_length(at, a), b), c)
    at = _put_length(_put_length(_put_length(at, d), e), f)
    at = _put_text(_put_text(_put_text(at, owner, a), service, b), called, c)
    _put_text(_put_text(_put_text(at, key, d), digest, e), metadata, f)
    return made
