cimport cython

from majordomus.core.session.connection cimport Connection
from majordomus.core.session.machine cimport Session
from majordomus.core.session.outbox cimport SessionOutbox
from majordomus.core.worker.streams cimport DispatchStreams
from majordomus.protocol.mdp03 cimport Fields


@cython.final
@cython.no_gc  # it holds bytes and numbers, so it is part of no cycle
@cython.freelist(64)
cdef class Dispatch:
    cdef public object id
    cdef public bytes service
    cdef public list frames
    cdef public object client
    cdef public double deadline
    cdef public object metadata
    cdef public object broker_metadata
    cdef public int flags


@cython.locals(made=Dispatch)
cpdef Dispatch make_dispatch(
    id,
    bytes service,
    list frames,
    client,
    double deadline,
    metadata,
    broker_metadata,
    int flags,
)


cdef class WorkerSessionBase(Session):
    cdef public object settings
    cdef public bint ready
    cdef public object worker_id
    cdef public object late
    cdef public dict invalid
    cdef public dict welcome
    cdef public object _codec
    cdef public dict _services
    cdef public object _service
    cdef public bytes _called
    cdef public bint _delphi
    cdef public object _busy_is_silent
    cdef public bint _joining
    cdef public object _capacity
    cdef public object _load
    cdef public Connection _connection
    cdef public SessionOutbox _outbox
    cdef public Fields _header
    cdef public DispatchStreams _streams
    cdef public object _event_ids
    cdef public object events
    cdef public dict _dispatches
    cdef public dict _legacy_replies
    cdef public object _base
    cdef public object _last
    cdef public bint _draining
    cdef public bint _left
    cdef public object _unregistered
    cdef public double _settle_at
    cdef public list _events
    cdef public list _taken
    cdef public dict _contracts
    cpdef object tick(self, double now)
    cpdef double next_deadline(self) except? -1
    @cython.locals(events=list, sends=list, tags=list, renew=bint)
    cpdef tuple take_effects(self)
