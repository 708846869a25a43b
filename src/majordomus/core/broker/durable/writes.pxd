cimport cython


@cython.final
cdef class Writes:
    cdef public long long last
    cdef public list new
    cdef public list _taken
    cdef public object _waiting
    cpdef object add(self, object operation, object then=*)
    cpdef list take(self)
    @cython.locals(found=dict)
    cpdef object stored(self, long long number, object answers, double now)
