cimport cython

cimport majordomus.protocol.spec as spec
from majordomus.core.broker.state.peers cimport Peer
from majordomus.core.broker.state.requests cimport AcceptedRequest
from majordomus.core.broker.commands.dependencies cimport Commands
from majordomus.core.broker.state.workers cimport RegisteredWorker


@cython.final
cdef class LegacyCommands(Commands):
    cpdef object handle(self, Peer peer, dialect, tuple envelope, command, double now)
    cdef object _request(self, Peer peer, dialect, tuple envelope, command, double now)
    @cython.locals(worker=RegisteredWorker)
    cdef object _from_worker(self, Peer peer, dialect, command, double now)
    @cython.locals(request=AcceptedRequest, answered=AcceptedRequest)
    cdef object _reply(self, RegisteredWorker worker, command, double now)
