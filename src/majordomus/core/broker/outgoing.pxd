cimport cython

cimport majordomus.protocol.spec as spec

from majordomus.core.broker.state.peers cimport Peer
from majordomus.core.broker.state.registry cimport Registry


@cython.final
cdef class Outgoing:
    cdef public Registry registry
    cdef public list sends
    cdef public list _taken
    cdef public dict overflow
    cdef public dict delayed
    cpdef list take(self)
    cpdef object send(
        self, Peer peer, list frames, object command, object conversation, double now
    )
    cpdef object send_to(
        self, bytes peer_id, list frames, object command, object conversation, double now
    )
    cpdef object flush(self, Peer peer, double now)
    cpdef object hold(
        self, Peer peer, list frames, object command, object conversation, double now
    )
