cimport cython

from majordomus.core.peers cimport Peer
from majordomus.core.rooms cimport Commands
from majordomus.core.requests cimport Request
from majordomus.core.workers cimport Worker


@cython.final
cdef class Mdp03Commands(Commands):
    cdef public dict _commands
    cdef public object _events
    cpdef object handle(self, Peer peer, tuple header, tuple envelope, list body, double now)
    cpdef object _request(self, Peer peer, tuple header, tuple envelope, list body, double now)
    cpdef object _final(self, Peer peer, tuple header, tuple envelope, list body, double now)
    cdef Worker _worker(self, Peer peer, tuple envelope)
