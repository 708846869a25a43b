cimport cython


@cython.final
cdef class SessionOutbox:
    cdef public list sends
    cdef public list tags
    cdef public list _taken
    cdef public list _taken_tags
    cdef public object _held
    cdef public list _returned
    cdef public Py_ssize_t _offered
    cdef public Py_ssize_t _refused
    cdef public double _delay
    cdef public bint blocked
    cdef public double due
    cpdef object put(self, list frames, tag)
    @cython.locals(sends=list, tags=list)
    cpdef tuple take(self)
    cpdef object keep(self, list frames, tag, double now)
    cpdef object block(self, double now)
    cpdef Py_ssize_t retry(self, double now) except? -1
    cpdef object unblock(self)
    cpdef object clear(self)
