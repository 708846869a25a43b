cimport cython

from majordomus.core.worker.session cimport WorkerSession
from majordomus.core.worker.session_base cimport Dispatch
from majordomus.net.connection.async_link cimport AsyncSessionConnection
from majordomus.net.worker.request cimport Request


cdef class WorkerConnection:
    cdef public object url
    cdef public WorkerSession session
    cdef public AsyncSessionConnection line
    cdef public dict invocations


@cython.final
cdef class RunLimit:
    cdef public int most
    cdef public int running
    cdef public object waiting
    cdef public bint starting


@cython.final
cdef class ServedService:
    cdef public object name
    cdef public object function
    cdef public bint in_process
    cdef public bint threaded
    cdef public bint simple
    cdef public object kind
    cdef public bytes contract
    cdef public RunLimit limit


@cython.final
@cython.freelist(64)
cdef class Invocation:
    cdef public WorkerConnection connection
    cdef public object dispatch_id
    cdef public Request request
    cdef public ServedService service
    cdef public bint finished
    cdef public object task
    cdef public object parts_ahead
    cdef public object flow
    cpdef object _fill(
        self, WorkerConnection connection, dispatch_id, Request request, ServedService service
    )


cdef class Serving:
    cdef public object _loop
    cdef public object _spawner
    cdef public object _pool
    cdef public object _processes
    cdef public dict _services
    cdef public dict _limits
    cdef public object _outputs
    cdef public bint _outputs_scheduled
    cdef public bint _closing
    cdef public object _idle
    cdef public bint _idle_wanted
    cdef public double _stalled_after
    cdef public dict _kept
    cdef public ServedService _last_begun
    cdef public bytes _last_called
    cdef public WorkerConnection _current
    cdef public bint _flush_current
    @cython.locals(
        service=ServedService, request=Request, invocation=Invocation, limit=RunLimit
    )
    cdef object _start(self, WorkerConnection connection, Dispatch dispatch)
    @cython.locals(connection=WorkerConnection, service=ServedService, request=Request)
    cdef object _begin(self, Invocation invocation)
    cdef object _flush(self, WorkerConnection connection)
    cdef object _end(self, Invocation invocation, result, error)
    @cython.locals(limit=RunLimit, ended=bint)
    cdef object _send_final(self, Invocation invocation, status, list frames)
