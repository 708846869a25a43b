cimport cython

cimport majordomus.core.broker.accel.arithmetic as arithmetic
from majordomus.core.broker.durable.records cimport Append, Complete, Remove


cdef Py_ssize_t _ROWS
cdef Py_ssize_t _BYTES


@cython.final
cdef class Batch:
    cdef public list rows
    cdef public list appended
    cdef public list records
    cdef public list ends
    cdef public list removes
    cdef public list reads
    cdef public list asked
    cdef public list others
    cpdef object add(self, list operations)


@cython.locals(count=Py_ssize_t, size=Py_ssize_t)
cpdef Py_ssize_t fitting(list operations) except -1
