cimport cython

from majordomus.core.broker.state.timer_wheel cimport Bucket
from majordomus.core.broker.state.peers cimport Peer
from majordomus.core.broker.state.services cimport FairQueue, Service
from majordomus.core.broker.state.workers cimport RegisteredWorker


cdef dict STEPS
cdef object HELD


@cython.final
@cython.freelist(256)
cdef class AcceptedRequest:
    cdef public Peer peer
    cdef public object dialect
    cdef public tuple envelope
    cdef public object named
    cdef public Py_ssize_t peer_index
    cdef public unsigned long long id
    cdef public object caller
    cdef public Service service
    cdef public bytes called
    cdef public list message
    cdef public object kept
    cdef public Py_ssize_t size
    cdef public Py_ssize_t cost
    cdef public Py_ssize_t slot_cost
    cdef public int flags
    cdef public bytes metadata
    cdef public double accepted
    cdef public double deadline
    cdef public object state
    cdef public int attempt
    cdef public unsigned long long dispatch_id
    cdef public RegisteredWorker worker
    cdef public RegisteredWorker target
    cdef public set rejected
    cdef public bint hedge
    cdef public FairQueue queue
    cdef public AcceptedRequest older
    cdef public AcceptedRequest newer
    cdef public Bucket bucket
    cdef public Py_ssize_t bucket_index
    cdef public object stream
    cdef public list past_dispatches
    cdef public double given
    cdef public double ended
    cdef public Py_ssize_t behind
    cdef public object outcome
    cdef public long long place
    cdef public list parts
    cdef public Py_ssize_t parts_size
    cpdef AcceptedRequest fill(
        self,
        Peer peer,
        object dialect,
        tuple envelope,
        object named,
        unsigned long long id,
        Service service,
        list message,
        Py_ssize_t size,
        int flags,
        bytes metadata,
        double accepted,
        double deadline,
    )
    cpdef Py_ssize_t frame_count(self) except -1
    @cython.locals(steps=tuple)
    cpdef object move(self, str event)
    @cython.locals(at=int)
    cpdef object follow(self, tuple steps)
