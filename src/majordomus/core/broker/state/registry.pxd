cimport cython

from majordomus.core.broker.state.account cimport Account
from majordomus.core.broker.state.timer_wheel cimport Deadlines, RequestDeadlines
from majordomus.core.broker.state.dispatch_table cimport DispatchTable
from majordomus.core.broker.accel.prefetch cimport Prefetcher
from majordomus.core.broker.state.requests cimport AcceptedRequest
from majordomus.core.broker.state.services cimport FairQueue, Service
from majordomus.core.broker.state.history cimport History
from majordomus.core.broker.state.times cimport Times


@cython.final
cdef class Counts:
    cdef public long long accepted
    cdef public long long answered
    cdef public long long failed
    cdef public long long expired
    cdef public long long cancelled
    cdef public long long dispatched
    cdef public long long retried
    cdef public long long rejected
    cdef public long long parts
    cdef public long long unanswered
    cdef public object refused
    cdef public object dropped
    cdef public object handshakes
    cdef public object published
    cdef public object pushed
    cdef public object undelivered
    cdef public object delivered
    cdef public long long asked


@cython.final
cdef class Registry:
    cdef public object settings
    cdef public object ids
    cdef public str name
    cdef public str version
    cdef public str wire
    cdef public object rights
    cdef public dict identities
    cdef public dict peers
    cdef public dict workers
    cdef public dict services
    cdef public list names
    cdef public Prefetcher service_index
    cdef public object backlogged
    cdef public dict served
    cdef public Counts counts
    cdef public list facts
    cdef public Account account
    cdef public object contracts
    cdef public object buffers
    cdef public object process
    cdef public Times forgotten
    cdef public list late
    cdef public double late_seconds
    cdef public object report_store
    cdef public DispatchTable dispatch_table
    cdef public RequestDeadlines requests
    cdef public Deadlines timers
    cdef public Deadlines retries
    cdef public Py_ssize_t open
    cdef public Py_ssize_t queued
    cdef public Py_ssize_t queued_bytes
    cdef public Py_ssize_t outbox_bytes
    cdef public object strategies
    cdef public History history
    cdef public unsigned long long last_number
    cdef public bint draining
    cdef public double started
    cdef public Py_ssize_t restarts
    cdef public object sessions
    cdef public object away
    cdef public object handles
    cdef public object topics
    cdef public object refusals
    cpdef unsigned long long next_number(self) except? 0
    cpdef Service service(self, bytes name)
    cpdef Service find_service(self, bytes name)
    cpdef object tidy(self, Service service)
    cpdef object enter_queue(self, AcceptedRequest request)
    @cython.locals(waiting=FairQueue)
    cpdef object leave_queue(self, AcceptedRequest request)
