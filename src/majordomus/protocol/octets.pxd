# The functions of octets.py in C, for what is compiled. octets.py itself is not.
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize
from libc.string cimport memcmp, memcpy


cdef enum:
    COMMAND_AT = 4
    SERVICE_AT = 21

cdef inline bint is_mdp03(object frame) except -1:
    if PyBytes_CheckExact(frame):
        return len(<bytes>frame) >= 4 and memcmp(PyBytes_AS_STRING(frame), b"MDP\x03", 4) == 0
    return frame[:4] == b"MDP\x03"


cdef inline int command_of(object header) except -2:
    return header[COMMAND_AT] if len(header) > COMMAND_AT else -1


cdef inline int command_in(bytes header) noexcept:
    return (<const unsigned char*>PyBytes_AS_STRING(header))[COMMAND_AT]


cdef inline Py_ssize_t service_length(bytes header) noexcept:
    return (<const unsigned char*>PyBytes_AS_STRING(header))[SERVICE_AT - 1]


# Eight bytes at a time. The last eight may overlap those before; they are turned so that those that
# are new come first, where the multiplication spreads them best. A shorter name is padded with zeros.
cdef inline Py_ssize_t name_hash(bytes frame, Py_ssize_t start, Py_ssize_t end) noexcept:
    cdef const char* at = PyBytes_AS_STRING(frame) + start
    cdef size_t left = end - start
    cdef unsigned long long found = left, word
    while left >= 8:
        memcpy(&word, at, 8)
        found = (found ^ word) * 0x9E3779B97F4A7C15ULL
        found ^= found >> 32
        at += 8
        left -= 8
    word = 0
    if left and end - start >= 8:
        memcpy(&word, at + left - 8, 8)
        word = word >> 8 * (8 - left) | word << 8 * left
    elif left:
        memcpy(&word, at, left)
    found = (found ^ word) * 0x9E3779B97F4A7C15ULL
    return <Py_ssize_t>((found ^ found >> 32) & 0x7FFFFFFFFFFFFFFFULL)


# What is written out here, byte by byte, the compiler makes one load or store.
cdef inline unsigned long long _read8(const unsigned char* at) noexcept:
    return (
        <unsigned long long>at[0] << 56
        | <unsigned long long>at[1] << 48
        | <unsigned long long>at[2] << 40
        | <unsigned long long>at[3] << 32
        | <unsigned long long>at[4] << 24
        | <unsigned long long>at[5] << 16
        | <unsigned long long>at[6] << 8
        | <unsigned long long>at[7]
    )


cdef inline unsigned int _read4(const unsigned char* at) noexcept:
    return (
        <unsigned int>at[0] << 24
        | <unsigned int>at[1] << 16
        | <unsigned int>at[2] << 8
        | <unsigned int>at[3]
    )


cdef inline void put8(unsigned char* at, unsigned long long word) noexcept:
    at[0] = <unsigned char>(word >> 56)
    at[1] = <unsigned char>(word >> 48)
    at[2] = <unsigned char>(word >> 40)
    at[3] = <unsigned char>(word >> 32)
    at[4] = <unsigned char>(word >> 24)
    at[5] = <unsigned char>(word >> 16)
    at[6] = <unsigned char>(word >> 8)
    at[7] = <unsigned char>word


cdef inline void put4(unsigned char* at, unsigned int word) noexcept:
    at[0] = <unsigned char>(word >> 24)
    at[1] = <unsigned char>(word >> 16)
    at[2] = <unsigned char>(word >> 8)
    at[3] = <unsigned char>word


cdef inline void _write(
    unsigned char* at,
    unsigned char command,
    unsigned char flags,
    unsigned short code,
    unsigned long long id,
    unsigned int ttl,
) noexcept:
    memcpy(at, b"MDP\x03", 4)
    at[4] = command
    at[5] = flags
    at[6] = code >> 8
    at[7] = code & 255
    put8(at + 8, id)
    put4(at + 16, ttl)


cdef inline (int, int, int, unsigned long long, unsigned int, int) fields(bytes header) noexcept:
    cdef const unsigned char* at
    if len(header) < SERVICE_AT:
        return 0, 0, 0, 0, 0, 0
    at = <const unsigned char*>PyBytes_AS_STRING(header)
    return at[4], at[5], at[6] << 8 | at[7], _read8(at + 8), _read4(at + 16), at[20]


cdef inline bytes digits(unsigned long long number):
    cdef bytes made = PyBytes_FromStringAndSize(NULL, 16)
    cdef char* at = PyBytes_AS_STRING(made)
    cdef const char* known = b"0123456789abcdef"
    cdef int i
    for i in range(15, -1, -1):
        at[i] = known[number & 15]
        number >>= 4
    return made


cdef inline unsigned int ttl(double seconds) noexcept:
    return <unsigned int>(seconds * 1000) or 1


# Most messages have one more frame. The slice, as `del` takes it, costs twice as much.
cdef inline object drop_header(list frames):
    if len(frames) == 2:
        frames[0] = frames.pop()
    else:
        del frames[0]


cdef inline bytes piece(bytes frame, Py_ssize_t start, Py_ssize_t end):
    if start < 0 or end < start or end > len(frame):
        raise IndexError("not within the frame")
    return PyBytes_FromStringAndSize(PyBytes_AS_STRING(frame) + start, end - start)


cdef inline bytes name_at(bytes frame, Py_ssize_t start, Py_ssize_t end, bytes last):
    if last is not None and len(last) == end - start and 0 <= start and end <= len(frame):
        if memcmp(PyBytes_AS_STRING(frame) + start, PyBytes_AS_STRING(last), end - start) == 0:
            return last
    return piece(frame, start, end)


cdef inline bytes start(
    unsigned char command,
    unsigned char flags,
    unsigned short code,
    unsigned long long id,
    unsigned int ttl,
):
    cdef bytes made = PyBytes_FromStringAndSize(NULL, 20)
    cdef unsigned char* at = <unsigned char*>PyBytes_AS_STRING(made)
    _write(at, command, flags, code, id, ttl)
    return made


cdef inline bytes start_with(
    unsigned char command,
    unsigned char flags,
    unsigned short code,
    unsigned long long id,
    unsigned int ttl,
    bytes tail,
):
    cdef Py_ssize_t size = len(tail)
    cdef bytes made = PyBytes_FromStringAndSize(NULL, 20 + size)
    cdef unsigned char* at = <unsigned char*>PyBytes_AS_STRING(made)
    _write(at, command, flags, code, id, ttl)
    memcpy(at + 20, PyBytes_AS_STRING(tail), size)
    return made


cdef inline bytes header(
    unsigned char command,
    unsigned char flags,
    unsigned short code,
    unsigned long long id,
    unsigned int ttl,
    bytes service,
    bytes address,
):
    cdef Py_ssize_t named = len(service), addressed = len(address)
    cdef bytes made
    cdef unsigned char* at
    if named > 255 or addressed > 255:
        raise IndexError("a name of more than 255 bytes")
    made = PyBytes_FromStringAndSize(NULL, 22 + named + addressed)
    at = <unsigned char*>PyBytes_AS_STRING(made)
    _write(at, command, flags, code, id, ttl)
    at[20] = <unsigned char>named
    memcpy(at + 21, PyBytes_AS_STRING(service), named)
    at[21 + named] = <unsigned char>addressed
    memcpy(at + 22 + named, PyBytes_AS_STRING(address), addressed)
    return made
