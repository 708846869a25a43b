# The functions of arithmetic.py in C, for the compiled rules. arithmetic.py itself is not compiled.
from cpython.bytes cimport PyBytes_CheckExact
from cpython.ref cimport PyObject


cdef extern from *:
    bint is_bytes "PyBytes_CheckExact"(PyObject* one) noexcept
    Py_ssize_t size_of_bytes "PyBytes_GET_SIZE"(PyObject* one) noexcept
    PyObject* item "PyList_GET_ITEM"(PyObject* frames, Py_ssize_t at) noexcept
    Py_ssize_t size_of_list "PyList_GET_SIZE"(PyObject* frames) noexcept


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


cdef inline Py_ssize_t size(list frames) except -1:
    cdef PyObject* all = <PyObject*>frames
    cdef PyObject* one
    cdef Py_ssize_t n, total = 0
    for n in range(size_of_list(all)):
        one = item(all, n)  # borrowed: no reference is counted
        total += size_of_bytes(one) if is_bytes(one) else len(<object>one)
    return total
