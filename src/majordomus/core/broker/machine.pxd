cimport cython

cimport majordomus.protocol.mdp03 as mdp03
cimport majordomus.protocol.octets as octets
cimport majordomus.protocol.spec as spec
from majordomus.protocol.mdp03 cimport Fields
from majordomus.core.broker.admission cimport Admission
from majordomus.core.broker.completion cimport Completion
from majordomus.core.broker.dispatch cimport Dispatcher
from majordomus.core.broker.durable.installed cimport InstalledStore
from majordomus.core.broker.hooks.installed cimport InstalledHooks
from majordomus.core.broker.queueing cimport Queueing
from majordomus.core.broker.accel.prefetch cimport Prefetcher
from majordomus.core.broker.commands.legacy cimport LegacyCommands
from majordomus.protocol.recognise cimport recognise
from majordomus.core.broker.commands.mdp03 cimport Mdp03Commands
from majordomus.core.broker.outgoing cimport Outgoing
from majordomus.core.broker.state.peers cimport Peer
from majordomus.core.broker.presence cimport Presence
from majordomus.core.broker.state.registry cimport Registry
from majordomus.core.broker.state.requests cimport AcceptedRequest

cdef double LATE


cdef class BrokerMachine:
    cdef public object settings
    cdef public Prefetcher prefetcher
    cdef public Registry registry
    cdef public Outgoing outgoing
    cdef public InstalledHooks installed
    cdef public InstalledStore store
    cdef public Dispatcher dispatcher
    cdef public Completion completion
    cdef public Queueing queueing
    cdef public object retries
    cdef public Presence presence
    cdef public object authorization
    cdef public object events
    cdef public Admission admission
    cdef public object calls
    cdef public object registration
    cdef public double _next_tick
    cdef public list _facts_taken
    cdef public list _writes
    cdef public double _next_version_answer
    cdef public dict _codecs
    cdef public Fields _header
    cdef public Mdp03Commands _mdp03
    cdef public LegacyCommands _legacy
    @cython.locals(peer_id=bytes, frames=list)
    cpdef list receive_all(self, list batch, double now)
    @cython.locals(request=AcceptedRequest, late=double)
    cpdef object tick(self, double now)
    @cython.locals(registry=Registry)
    cpdef double next_deadline(self) except? -1
    @cython.locals(facts=list, sends=list)
    cpdef tuple take_effects(self)
    cpdef object socket_empty(self, double now)
    cpdef object receive(self, bytes peer_id, list frames, double now)
    @cython.locals(at=Py_ssize_t, header=Fields, peer=Peer)
    cpdef object handle_message(self, bytes peer_id, list frames, double now)
    @cython.locals(envelope=tuple, peer=Peer)
    cdef object _receive_legacy(
        self, bytes peer_id, dialect, list frames, Py_ssize_t at, double now
    )
