cimport cython

from majordomus.core.broker.state.peers cimport Peer
from majordomus.core.broker.state.requests cimport AcceptedRequest
from majordomus.core.broker.state.workers cimport RegisteredWorker


cdef object FORGOTTEN


@cython.final
cdef class DispatchTable:
    cdef public list _entries
    cdef public unsigned long long _mask
    cdef public unsigned long long count
    @cython.locals(at=Py_ssize_t, number="unsigned long long")
    cpdef unsigned long long give(self, AcceptedRequest request, unsigned long long last) except? 0
    @cython.locals(at=Py_ssize_t, request=AcceptedRequest)
    cpdef AcceptedRequest of(self, RegisteredWorker worker, unsigned long long number)
    @cython.locals(request=AcceptedRequest)
    cpdef AcceptedRequest numbered(self, unsigned long long number)
    @cython.locals(at=Py_ssize_t, request=AcceptedRequest, peer=Peer)
    cpdef Peer answerer(self, bytes peer_id, unsigned long long number)
    @cython.locals(at=Py_ssize_t, request=AcceptedRequest)
    cpdef AcceptedRequest take(self, RegisteredWorker worker, unsigned long long number)
    @cython.locals(request=AcceptedRequest)
    cdef object _grow(self)
