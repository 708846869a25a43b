cimport cython


@cython.freelist(64)
cdef class TimedItem:
    cdef public double timer_at


@cython.final
cdef class TimerQueue:
    cdef public list _heap
    cdef public list _row
    cdef public Py_ssize_t _first
    cdef public double _last
    cdef public dict _items
    cdef public Py_ssize_t _limit
    cpdef object schedule(self, key, TimedItem item, double when)
    @cython.locals(when=double)
    cpdef double next(self) except? -1
    @cython.locals(entry=tuple, item=TimedItem)
    cpdef object pop(self, double now)
    cpdef tuple _take(self)
    @cython.locals(entry=tuple, item=TimedItem, valid=list)
    cpdef list _valid(self, list entries)
