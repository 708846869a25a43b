cimport cython

cimport majordomus.core.broker.encoding as encoding
from majordomus.core.broker.completion cimport Completion
from majordomus.core.broker.hooks.installed cimport InstalledHooks
from majordomus.core.broker.outgoing cimport Outgoing
from majordomus.core.broker.queueing cimport Queueing
from majordomus.core.broker.state.peers cimport Peer
from majordomus.core.broker.state.registry cimport Registry
from majordomus.core.broker.state.workers cimport RegisteredWorker


@cython.final
cdef class Presence:
    cdef public Registry registry
    cdef public Outgoing outgoing
    cdef public Queueing queueing
    cdef public Completion completion
    cdef public object retries
    cdef public object events
    cdef public InstalledHooks hooks
    cdef public dict suspects
    cdef public list ended
    cdef public double _silence_counts_from
    cdef public bytes _welcome
    cdef public double _worker_interval
    cdef public double _client_interval
    cdef public double _liveness

    cpdef object _arm(self, Peer peer, double when)
    @cython.locals(worker=RegisteredWorker)
    cpdef double _interval(self, Peer peer) except? -1
    @cython.locals(peer=Peer, expiry=double)
    cpdef object tick(self, double now)
    @cython.locals(worker=RegisteredWorker)
    cpdef double _expiry(self, Peer peer) except? -1
    @cython.locals(worker=RegisteredWorker, interval=double, last=double)
    cpdef double _heartbeat_if_due(self, Peer peer, double now) except? -1
    @cython.locals(worker=RegisteredWorker)
    cpdef object send_heartbeat(self, Peer peer, double now)
