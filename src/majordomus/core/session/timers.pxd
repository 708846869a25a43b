cimport cython


cdef class TimedItem:
    cdef public object number
    cdef public double timer_at
    cdef public Py_ssize_t timer_place


@cython.final
cdef class TimerQueue:
    cdef public list _heap
    cdef public list _row
    cdef public Py_ssize_t _first
    cdef public Py_ssize_t _passed
    cdef public double _last
    cdef public dict _items
    cdef public Py_ssize_t _limit
    cpdef object schedule(self, TimedItem item, double when)
    cpdef object remove(self, TimedItem item)
    @cython.locals(when=double, first=TimedItem)
    cpdef double next(self) except? -1
    cpdef object pop(self, double now)
    @cython.locals(heap=list, row=list, item=TimedItem)
    cpdef object _take(self)
    @cython.locals(row=list, at=Py_ssize_t, end=Py_ssize_t)
    cdef object _leave_row(self, TimedItem item)
