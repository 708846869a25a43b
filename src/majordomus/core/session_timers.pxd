cimport cython


@cython.final
cdef class Timers:
    cdef public list _heap
    cdef public dict _items
    cdef public Py_ssize_t _limit
    cpdef object watch(self, key, item, double when)
    cpdef double next(self) except? -1
    cpdef object pop(self, double now)
