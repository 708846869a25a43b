cimport cython

cimport majordomus.core.broker.accel.prefetch_hints as hints
# Upwards, for the layout alone (see prefetch_hints.pxd).
from majordomus.core.broker.state.services cimport Service
from majordomus.protocol.mdp03 cimport called_service


@cython.final
cdef class Prefetcher:
    cdef public dict services
    cdef public list _table
    cdef public Py_ssize_t _mask
    cdef public list _guesses
    cdef public Py_ssize_t _next
    @cython.locals(guesses=list, n=Py_ssize_t, service=Service)
    cpdef Service find(self, bytes name)
    cpdef object add(self, Service service)
    cpdef object remove(self, Service service)
    cpdef object ahead(self, list batch)
    @cython.locals(table=list, names=list, n=Py_ssize_t, frames=list, name=bytes)
    cpdef object look(self, list batch, Py_ssize_t at, Py_ssize_t end)
    @cython.locals(table=list, name=bytes, guesses=list, service=Service)
    cdef object _guess(self, list names)
    @cython.locals(table=list, size=Py_ssize_t, service=Service)
    cdef object _grow(self)


@cython.final
cdef class _LookAhead:
    cdef public Prefetcher _prefetcher
    cdef public list _batch
    cdef public Py_ssize_t _at
    cdef public Py_ssize_t _looked
