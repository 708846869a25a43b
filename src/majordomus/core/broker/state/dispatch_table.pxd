cimport cython

from majordomus.core.broker.state.peers cimport Peer
from majordomus.core.broker.state.requests cimport Request
from majordomus.core.broker.state.workers cimport Worker


@cython.final
cdef class Dispatched:
    cdef public list _places
    cdef public unsigned long long _mask
    cdef public unsigned long long count
    @cython.locals(at=Py_ssize_t, number="unsigned long long")
    cpdef unsigned long long give(self, Request request, unsigned long long last) except? 0
    @cython.locals(request=Request)
    cpdef Request of(self, Worker worker, unsigned long long number)
    @cython.locals(request=Request, peer=Peer)
    cpdef Peer answerer(self, bytes peer_id, unsigned long long number)
    @cython.locals(at=Py_ssize_t, request=Request)
    cpdef Request take(self, Worker worker, unsigned long long number)
    @cython.locals(request=Request)
    cdef object _grow(self)
