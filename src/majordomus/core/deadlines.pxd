cimport cython


@cython.final
cdef class Deadlines:
    cdef public dict _slots
    cdef public list _steps
    cpdef dict add(self, object item, double when)
    cpdef list due(self, double now)
    cpdef double next(self) except? -1
