# The functions of octets.py in C, for what is compiled. octets.py itself is not.
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize
from libc.string cimport memcmp, memcpy


cdef inline bint is_mdp03(object frame) except -1:
    if PyBytes_CheckExact(frame):
        return len(<bytes>frame) >= 4 and memcmp(PyBytes_AS_STRING(frame), b"MDP\x03", 4) == 0
    return frame[:4] == b"MDP\x03"


cdef inline (int, int, int, unsigned long long, unsigned int, int) fields(bytes header) except *:
    cdef const unsigned char* at
    cdef unsigned long long id = 0
    cdef unsigned int ttl = 0
    cdef int n
    if len(header) < 21:
        raise IndexError("too short")
    at = <const unsigned char*>PyBytes_AS_STRING(header)
    for n in range(8, 16):
        id = id << 8 | at[n]
    for n in range(16, 20):
        ttl = ttl << 8 | at[n]
    return at[4], at[5], at[6] << 8 | at[7], id, ttl, at[20]


cdef inline bytes piece(bytes frame, Py_ssize_t start, Py_ssize_t end):
    if start < 0 or end < start or end > len(frame):
        raise IndexError("not within the frame")
    return PyBytes_FromStringAndSize(PyBytes_AS_STRING(frame) + start, end - start)


cdef inline bytes start(
    unsigned char command,
    unsigned char flags,
    unsigned short code,
    unsigned long long id,
    unsigned int ttl,
):
    cdef bytes made = PyBytes_FromStringAndSize(NULL, 20)
    cdef unsigned char* at = <unsigned char*>PyBytes_AS_STRING(made)
    cdef int n
    memcpy(at, b"MDP\x03", 4)
    at[4] = command
    at[5] = flags
    at[6] = code >> 8
    at[7] = code & 255
    for n in range(8):
        at[8 + n] = (id >> (56 - 8 * n)) & 255
    for n in range(4):
        at[16 + n] = (ttl >> (24 - 8 * n)) & 255
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
    cdef int n
    if named > 255 or addressed > 255:
        raise IndexError("a name of more than 255 bytes")
    made = PyBytes_FromStringAndSize(NULL, 22 + named + addressed)
    at = <unsigned char*>PyBytes_AS_STRING(made)
    memcpy(at, b"MDP\x03", 4)
    at[4] = command
    at[5] = flags
    at[6] = code >> 8
    at[7] = code & 255
    for n in range(8):
        at[8 + n] = (id >> (56 - 8 * n)) & 255
    for n in range(4):
        at[16 + n] = (ttl >> (24 - 8 * n)) & 255
    at[20] = <unsigned char>named
    memcpy(at + 21, PyBytes_AS_STRING(service), named)
    at[21 + named] = <unsigned char>addressed
    memcpy(at + 22 + named, PyBytes_AS_STRING(address), addressed)
    return made
