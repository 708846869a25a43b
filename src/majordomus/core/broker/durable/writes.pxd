cimport cython


@cython.final
cdef class Writes:
    cdef public long long last
    cdef public list new
    cdef public list _taken
    cdef public list _waiting
    cpdef object add(self, object operation, object then=*)
    cpdef list take(self)
    @cython.locals(count=Py_ssize_t)
    cpdef list stored(self, long long number)
