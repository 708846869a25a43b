cimport cython

cimport majordomus.core.broker.encoding as encoding
cimport majordomus.protocol.spec as spec
from majordomus.core.broker.dispatch cimport Dispatcher
from majordomus.core.broker.durable.installed cimport InstalledStore
from majordomus.core.broker.hooks.installed cimport InstalledHooks
from majordomus.core.broker.outgoing cimport Outgoing
from majordomus.core.broker.queueing cimport Queueing
from majordomus.core.broker.state.peers cimport Peer
from majordomus.core.broker.state.registry cimport Counts, Registry
from majordomus.core.broker.state.requests cimport AcceptedRequest
from majordomus.core.broker.state.services cimport Service
from majordomus.core.broker.state.workers cimport RegisteredWorker


cdef object MDP03
cdef object DISPATCHED
cdef object STREAMING
cdef object FINAL
cdef tuple ANSWER
cdef list NO_FRAMES
cdef int SILENT


@cython.final
cdef class Completion:
    cdef public Registry registry
    cdef public Outgoing outgoing
    cdef public Dispatcher dispatcher
    cdef public object streams
    cdef public Queueing queueing
    cdef public InstalledHooks hooks
    cdef public InstalledStore store
    @cython.locals(registry=Registry, peer=Peer, cost=Py_ssize_t)
    cpdef object accept(self, AcceptedRequest request)
    cpdef object pass_part(
        self, AcceptedRequest request, list frames, int flags, bytes metadata, double now
    )
    @cython.locals(worker_id=bytes)
    cpdef object pass_final(
        self,
        AcceptedRequest request,
        int status,
        list message,
        int flags,
        bytes metadata,
        double now,
    )
    @cython.locals(worker_id=bytes)
    cpdef object answer(
        self,
        AcceptedRequest request,
        int status,
        list frames,
        int flags,
        bytes metadata,
        double now,
    )
    @cython.locals(counts=Counts, at=int)
    cdef bytes _set_outcome(self, AcceptedRequest request, int status)
    cpdef object fail(self, AcceptedRequest request, int status, str text, double now)
    cpdef object fail_if_open(self, AcceptedRequest request, int status, str text, double now)
    cpdef object cancel(self, AcceptedRequest request, double now)
    cpdef object cancel_silently(self, AcceptedRequest request, double now)
    cpdef object expire(self, AcceptedRequest request, double now)
    @cython.locals(worker=RegisteredWorker)
    cdef object _end(self, AcceptedRequest request, str event, double now, int status)
    @cython.locals(
        registry=Registry,
        service=Service,
        peer=Peer,
        cost=Py_ssize_t,
        last=AcceptedRequest,
    )
    cdef object _close(self, AcceptedRequest request, int status)
    @cython.locals(message=list)
    cdef object _send_final(
        self,
        AcceptedRequest request,
        int status,
        list frames,
        double now,
        bytes worker_id=*,
        int flags=*,
        bytes metadata=*,
    )
    cdef bint _end_run(
        self,
        AcceptedRequest request,
        int status,
        list frames,
        int flags,
        bytes metadata,
        double now,
    ) except -1
    cdef object _send_legacy(
        self, AcceptedRequest request, int status, list frames, double now
    )
