cimport cython

from majordomus.core.requests cimport Request
from majordomus.core.workers cimport Worker


@cython.final
cdef class Dispatched:
    cdef public list _places
    cdef public unsigned long long _mask
    cdef public unsigned long long count
    @cython.locals(at=Py_ssize_t)
    cpdef unsigned long long after(self, unsigned long long number) except? 0
    @cython.locals(at=Py_ssize_t)
    cpdef object enter(self, Request request)
    @cython.locals(at=Py_ssize_t, request=Request)
    cpdef Request of(self, Worker worker, unsigned long long number)
    @cython.locals(at=Py_ssize_t)
    cpdef object leave(self, Request request)
    @cython.locals(request=Request)
    cdef object _grow(self)
