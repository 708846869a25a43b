cimport cython

cimport majordomus.protocol.spec as spec
from majordomus.protocol.mdp03 cimport Fields
from majordomus.core.broker.admission cimport Admission
from majordomus.core.broker.state.peers cimport Peer, conversation
from majordomus.core.broker.commands.dependencies cimport Commands
from majordomus.core.broker.state.requests cimport AcceptedRequest
from majordomus.core.broker.balancing.registry cimport report_load
from majordomus.core.broker.state.workers cimport RegisteredWorker


cdef unsigned long long BROKER_ID_BIT
cdef object MDP03
cdef list NO_BODY


@cython.final
cdef class Mdp03Commands(Commands):
    cdef public dict _commands
    cdef public object _events
    @cython.locals(command=int)
    cpdef object handle(self, Peer peer, Fields header, list frames, Py_ssize_t at, double now)
    @cython.locals(flags=int, id="unsigned long long", envelope=tuple)
    cdef object _request(self, Peer peer, Fields header, list frames, Py_ssize_t at, double now)
    @cython.locals(
        flags=int,
        dispatch_id="unsigned long long",
        metadata_field=bytes,
        worker=RegisteredWorker,
        request=AcceptedRequest,
    )
    cdef object _final(self, Peer peer, Fields header, list frames, Py_ssize_t at, double now)
    cdef RegisteredWorker _worker(self, Peer peer, tuple envelope)
    @cython.locals(load=int, worker=RegisteredWorker)
    cpdef object _heartbeat(self, Peer peer, Fields header, tuple envelope, list body, double now)
