cimport cython

from majordomus.core.dispatch cimport Dispatcher
from majordomus.core.peers cimport Peer
from majordomus.core.registry cimport Registry
from majordomus.core.services cimport Service
from majordomus.core.requests cimport Request


@cython.final
cdef class Admission:
    cdef public Registry registry
    cdef public Dispatcher dispatcher
    cdef public object authority
    cdef public object hooks
    cpdef object admit(
        self,
        Peer peer,
        dialect,
        tuple envelope,
        unsigned long long id,
        int flags,
        double ttl,
        bytes name,
        bytes address,
        bytes metadata,
        list body,
        double now,
    )
    cpdef bint too_large(self, list body) except -1
    cdef Py_ssize_t _size(self, list body) except -1
