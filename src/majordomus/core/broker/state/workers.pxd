cimport cython

from majordomus.core.broker.balancing.ring cimport RingNode
from majordomus.core.broker.state.peers cimport Peer
from majordomus.core.broker.state.requests cimport AcceptedRequest
from majordomus.core.broker.state.services cimport FairQueue, Service


cdef object SERVING


# What every request reads or writes stands first, side by side: two lines of a processor's cache. It
# ends 120 bytes into the object, up to which prefetch_hints.pxd asks for it.
@cython.final
cdef class RegisteredWorker:
    cdef public Peer peer
    cdef public bytes id
    cdef public object dialect
    cdef public object state
    cdef public object load
    cdef public Py_ssize_t capacity
    cdef public Py_ssize_t holding
    cdef public AcceptedRequest oldest
    cdef public AcceptedRequest newest
    cdef public list order
    cdef public double busy_since
    cdef public RingNode ring_node
    cdef public dict services
    cdef public dict metadata
    cdef public dict handles
    cdef public set undelivered
    cdef public FairQueue waiting
    cdef public bint reserved_last
    cdef public double last_heartbeat
    cdef public object answered
    cdef public Py_ssize_t cost
    cpdef bint has_free_slot(self) except -1
    cpdef object move(self, str event)
