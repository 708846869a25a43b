cimport cython

from majordomus.protocol cimport spec
from majordomus.core.peers cimport Peer, conversation
from majordomus.core.rooms cimport Commands
from majordomus.core.requests cimport Request
from majordomus.core.workers cimport Worker


@cython.final
cdef class Mdp03Commands(Commands):
    cdef public dict _commands
    cdef public object _events
    @cython.locals(command=int)
    cpdef object handle(self, Peer peer, tuple header, tuple envelope, list body, double now)
    @cython.locals(flags=int, ttl="unsigned int")
    cpdef object _request(self, Peer peer, tuple header, tuple envelope, list body, double now)
    @cython.locals(flags=int, status=int, worker=Worker, request=Request)
    cpdef object _final(self, Peer peer, tuple header, tuple envelope, list body, double now)
    cdef Worker _worker(self, Peer peer, tuple envelope)
