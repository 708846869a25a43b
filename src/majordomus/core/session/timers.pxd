cimport cython


@cython.freelist(64)
cdef class Watched:
    cdef public double look


@cython.final
cdef class Timers:
    cdef public list _heap
    cdef public list _row
    cdef public Py_ssize_t _first
    cdef public double _last
    cdef public dict _items
    cdef public Py_ssize_t _limit
    cpdef object watch(self, key, Watched item, double when)
    @cython.locals(when=double)
    cpdef double next(self) except? -1
    @cython.locals(entry=tuple, item=Watched)
    cpdef object pop(self, double now)
    cpdef tuple _take(self)
    @cython.locals(entry=tuple, item=Watched, living=list)
    cpdef list _living(self, list entries)
