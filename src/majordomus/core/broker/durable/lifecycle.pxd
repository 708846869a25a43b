cimport cython

cimport majordomus.core.broker.accel.arithmetic as arithmetic
cimport majordomus.core.broker.durable.options as options
cimport majordomus.protocol.spec as spec
from majordomus.core.broker.completion cimport Completion
from majordomus.core.broker.durable.backlog cimport Backlog, ServiceBacklog
from majordomus.core.broker.durable.options cimport Options
from majordomus.core.broker.durable.records cimport (
    Append,
    Complete,
    Remove,
    StoredOutcome,
    StoredRequest,
)
from majordomus.core.broker.durable.requests cimport DurableRequest, Owner
from majordomus.core.broker.durable.writes cimport Writes
from majordomus.core.broker.outgoing cimport Outgoing
from majordomus.core.broker.queueing cimport Queueing
from majordomus.core.broker.state.account cimport Account, cost_of
from majordomus.core.broker.state.peers cimport Peer
from majordomus.core.broker.state.registry cimport Registry
from majordomus.core.broker.state.requests cimport AcceptedRequest
from majordomus.core.broker.state.services cimport Service
from majordomus.core.broker.state.timer_wheel cimport Deadlines


cdef object MDP03
cdef object ID
cdef object NOTHING
cdef object OUTCOME
cdef object RESULT
cdef object TITANIC_ID
cdef object TITANIC_REPLY
cdef object TITANIC_DONE
cdef object STORING
cdef object WAITING
cdef object RUNNING
cdef object ENDING
cdef tuple AT_STORING
cdef list NO_FRAMES
cdef dict NO_ANSWERS
cdef Py_ssize_t _ROW
cdef Py_ssize_t _FRAME


@cython.final
cdef class DurableRequests:
    cdef public Registry registry
    cdef public Outgoing outgoing
    cdef public Completion completion
    cdef public Queueing queueing
    cdef public str name
    cdef public bytes secret
    cdef public double offset
    cdef public object state
    cdef public Writes writes
    cdef public dict jobs
    cdef public dict owners
    cdef public dict declared
    cdef public Backlog backlog
    cdef public object random
    cdef public long long _next
    cdef public Deadlines _due
    cdef public Deadlines _expiries
    cdef public dict _unrecorded
    cdef public dict _finding
    cdef public double _record_at
    cdef public double _sweep_at
    cdef public dict _refill
    cdef public double _refill_at
    @cython.locals(flags=int, field=bytes, body=list)
    cpdef object submit(self, AcceptedRequest request, double now)
    @cython.locals(account=Account, known=Owner, peer=Peer, cost=Py_ssize_t)
    cpdef str problem(self, str owner, list body, bytes field)
    @cython.locals(
        wall=double,
        keep=double,
        expires=double,
        owner=str,
        job=DurableRequest,
        row=StoredRequest,
    )
    cpdef object enter(
        self,
        AcceptedRequest request,
        bytes service,
        bytes called,
        list body,
        bytes field,
        Options asked,
        object wants,
        double now,
    )
    cpdef object let_wait(self, AcceptedRequest request)
    @cython.locals(peer=Peer, job=DurableRequest)
    cpdef DurableRequest _make(self, StoredRequest row)
    @cython.locals(owner=Owner)
    cpdef Peer _owner(self, str user)
    @cython.locals(peer=Peer)
    cpdef Peer _new_peer(self, str user)
    @cython.locals(owner=Owner)
    cpdef object _forget(self, DurableRequest job)
    @cython.locals(request=AcceptedRequest)
    cpdef object _appended(self, DurableRequest job, object answer, double now)
    @cython.locals(own=ServiceBacklog, name=bytes)
    cpdef object _wait(self, DurableRequest job, double now)
    @cython.locals(own=ServiceBacklog, job=DurableRequest)
    cpdef object _place(self, bytes name, double now)
    @cython.locals(
        service=Service,
        run=AcceptedRequest,
        most=int,
        row=StoredRequest,
        field=bytes,
        own=ServiceBacklog,
    )
    cpdef object _run(self, DurableRequest job, double now)
    @cython.locals(job=DurableRequest)
    cpdef bint run_ended(
        self,
        AcceptedRequest run,
        int status,
        list frames,
        int flags,
        bytes field,
        double now,
    ) except -1
    cpdef bint _is_final(self, DurableRequest job, int status) except -1
    cpdef int _most(self, DurableRequest job) except -1
    @cython.locals(own=ServiceBacklog)
    cpdef object _leave_run(self, DurableRequest job)
    @cython.locals(wall=double, outcome=StoredOutcome)
    cpdef object _end(
        self, DurableRequest job, int status, list frames, bytes field, double now
    )
    @cython.locals(own=ServiceBacklog)
    cpdef object _stop_waiting(self, DurableRequest job)
    @cython.locals(run=AcceptedRequest, request=AcceptedRequest)
    cpdef object _ended(self, DurableRequest job, double now)
    @cython.locals(write='long long', found=dict)
    cpdef object stored(self, long long number, object answers, double now)
    @cython.locals(job=DurableRequest)
    cpdef object follow(self, object then, object answer, double now)
    @cython.locals(status=int, field=bytes, frames=list)
    cpdef object _answer(
        self,
        AcceptedRequest request,
        object wants,
        long long number,
        StoredOutcome outcome,
        double now,
    )
    cpdef bint is_declared(self, bytes name) except -1
    cpdef double next_deadline(self) except? -1


cpdef Py_ssize_t cost_of_row(list body, bytes field) except -1
