cimport cython


@cython.final
cdef class Waits:
    cdef public list waited
    cdef public list took
    cdef public list served
    cdef public double waited_seconds
    cdef public double unserved_seconds


@cython.final
cdef class Times:
    cdef public list queue
    cdef public list service
    cdef public list total
    cdef public double queue_seconds
    cdef public double service_seconds
    cdef public double total_seconds
    cdef public Py_ssize_t answered
    cdef public Py_ssize_t failed
    cdef public Py_ssize_t expired
    cdef public Py_ssize_t cancelled
