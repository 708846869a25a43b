cimport cython

from majordomus.core cimport arithmetic


cdef double _PER_SECOND


@cython.final
cdef class Deadlines:
    cdef public dict _slots
    cdef public list _steps
    cdef public long long _last_step
    cdef public dict _last
    @cython.locals(step="long long")
    cpdef dict add(self, object item, double when)
    cdef dict _slot(self, long long step)
    cdef dict _drop(self)
    cpdef list due(self, double now)
    cpdef double next(self) except? -1
