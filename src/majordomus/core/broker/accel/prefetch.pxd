cimport cython

cimport majordomus.core.broker.accel.prefetch_hints as hints
cimport majordomus.protocol.octets as octets
# Upwards, for the layout alone (see prefetch_hints.pxd).
from majordomus.core.broker.state.services cimport Service
from majordomus.protocol.mdp03 cimport called_name_hash


cdef Py_ssize_t _AT_ONCE


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
    @cython.locals(
        table=list,
        mask=Py_ssize_t,
        guesses=list,
        places="Py_ssize_t[16]",
        count=Py_ssize_t,
        n=Py_ssize_t,
        place=Py_ssize_t,
        service=Service,
    )
    cdef object look(self, list batch, Py_ssize_t at, Py_ssize_t end)
    cpdef Py_ssize_t _place(self, bytes name) except -1
    @cython.locals(table=list, size=Py_ssize_t, service=Service)
    cdef object _grow(self)


@cython.final
cdef class _LookAhead:
    cdef public Prefetcher _prefetcher
    cdef public list _batch
    cdef public Py_ssize_t _at
    cdef public Py_ssize_t _looked
    @cython.locals(at=Py_ssize_t, end=Py_ssize_t, batch=list)
    cdef object _following(self)
