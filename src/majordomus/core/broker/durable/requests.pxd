cimport cython

from majordomus.core.broker.durable.records cimport StoredOutcome, StoredRequest
from majordomus.core.broker.state.peers cimport Peer
from majordomus.core.broker.state.requests cimport AcceptedRequest


cdef object OUTCOME
cdef object STORING


@cython.final
cdef class Owner:
    cdef public Peer peer
    cdef public Py_ssize_t jobs


@cython.final
@cython.freelist(64)
cdef class DurableRequest:
    cdef public StoredRequest row
    cdef public Peer peer
    cdef public object state
    cdef public int attempts
    cdef public int recorded
    cdef public bint recording
    cdef public int failures
    cdef public double expires
    cdef public bint kept
    cdef public bint decided
    cdef public list waiting
    cdef public bint early
    cdef public AcceptedRequest run
    cdef public StoredOutcome outcome
    cdef public Py_ssize_t size
    cdef public Py_ssize_t cost
    cdef public dict timer
    cdef public dict expiry
    cpdef object prepare(self, StoredRequest row, Peer peer, Py_ssize_t cost)
    cpdef object move(self, str event)
    cpdef object wait(self, AcceptedRequest request, object wants)
    cpdef list take(self, tuple wanted)
    @cython.locals(request=AcceptedRequest)
    cpdef bint is_awaited(self) except -1
