cimport cython

cimport majordomus.core.broker.accel.prefetch_hints as hints
cimport majordomus.protocol.octets as octets
# Upwards, for the layout alone (see prefetch_hints.pxd).
from majordomus.core.broker.state.services cimport Service
from majordomus.protocol.mdp03 cimport Fields, called_name_hash


cdef Py_ssize_t _AHEAD


@cython.final
cdef class Prefetcher:
    cdef public dict services
    cdef public Fields header
    cdef public list _table
    cdef public Py_ssize_t _mask
    cdef public Service _guess
    @cython.locals(service=Service)
    cpdef Service find(self, bytes name)
    cpdef object add(self, Service service)
    cpdef object remove(self, Service service)
    cpdef object ahead(self, list batch)
    cpdef Py_ssize_t _place(self, bytes name) except -1
    @cython.locals(table=list, size=Py_ssize_t, service=Service)
    cdef object _grow(self)


@cython.final
cdef class _LookAhead:
    cdef public Prefetcher _prefetcher
    cdef public list _batch
    cdef public Py_ssize_t _at
    cdef public Py_ssize_t _steps_at
    cdef public Py_ssize_t _hashed
    cdef public Py_ssize_t _entry
    cdef public Service _staffed
    cdef public Service _peered
    cdef public Service _ordered
    @cython.locals(at=Py_ssize_t)
    cdef object _following(self)
    @cython.locals(
        prefetcher=Prefetcher, batch=list, table=list, service=Service, place=Py_ssize_t
    )
    cdef object _take_steps(self, Py_ssize_t at)
