cimport cython

cimport majordomus.core.broker.accel.prefetch_hints as hints
from majordomus.core.broker.state.services cimport Service
cimport majordomus.protocol.octets as octets
cimport majordomus.protocol.spec as spec


@cython.final
cdef class Prefetcher:
    cdef public dict _services
    cdef public list _table
    cdef public Py_ssize_t _mask
    cdef public list _guessed
    cdef public Py_ssize_t _next
    cpdef object made(self, Service service)
    cpdef object forget(self, Service service)
    @cython.locals(table=list, size=Py_ssize_t, service=Service)
    cdef object _grow(self)
    @cython.locals(
        table=list, names=list, end=Py_ssize_t, n=Py_ssize_t, frames=list, name=bytes
    )
    cpdef Py_ssize_t ahead(self, list batch, Py_ssize_t at) except -2
    @cython.locals(table=list, name=bytes, guessed=list, service=Service)
    cdef object _guess(self, list names)
    @cython.locals(guessed=list, n=Py_ssize_t, service=Service)
    cpdef Service recall(self, bytes name)


@cython.locals(header=bytes, end=Py_ssize_t)
cpdef bytes called(list frames)
