# The functions of arithmetic.py in C, for the compiled rules. arithmetic.py itself is not compiled.
from cpython.bytes cimport PyBytes_CheckExact


cdef inline long long whole(double number) noexcept:
    return <long long>number


cdef inline int bits(unsigned long long number) noexcept:
    cdef int n = 0
    while number:
        number >>= 1
        n += 1
    return n


cdef inline Py_ssize_t length(object frame) except -1:
    return len(<bytes>frame) if PyBytes_CheckExact(frame) else len(frame)
