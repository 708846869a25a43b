cimport cython

cimport majordomus.protocol.spec as spec
from majordomus.core.broker.state.peers cimport Peer
from majordomus.core.broker.state.requests cimport Request
from majordomus.core.broker.commands.dependencies cimport Commands
from majordomus.core.broker.state.workers cimport Worker


@cython.final
cdef class LegacyCommands(Commands):
    cpdef object handle(self, Peer peer, dialect, tuple envelope, command, double now)
    cdef object _request(self, Peer peer, dialect, tuple envelope, command, double now)
    @cython.locals(worker=Worker)
    cdef object _from_worker(self, Peer peer, dialect, command, double now)
    @cython.locals(request=Request, answered=Request)
    cdef object _reply(self, Worker worker, command, double now)
