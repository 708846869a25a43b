from majordomus.core.client.calls cimport Call, Calls
from majordomus.core.client.streams cimport ClientStreams
from majordomus.core.session.connection cimport Connection
from majordomus.core.session.machine cimport Session
from majordomus.core.session.outbox cimport SessionOutbox
from majordomus.protocol.mdp03 cimport Fields


cdef class ClientSessionBase(Session):
    cdef public object settings
    cdef public object late
    cdef public dict invalid
    cdef public object dropped
    cdef public dict welcome
    cdef public object peer_id
    cdef public object _rng
    cdef public object _ids
    cdef public object _encoder
    cdef public object _codec
    cdef public object _hello
    cdef public bytes _id
    cdef public object _home
    cdef public object _presence
    cdef public double _grace
    cdef public Connection _connection
    cdef public SessionOutbox _outbox
    cdef public Fields _header
    cdef public Calls _calls
    cdef public dict _open
    cdef public ClientStreams streams
    cdef public object events
    cdef public dict _tails
    cdef public unsigned long long _last
    cdef public Call _blocker
    cdef public bint _direct
    cdef public bint _leaving
    cdef public double _send_at
    cdef public list _events
    cdef public list _taken
    cdef public Py_ssize_t _most
    cdef public unsigned long long _probe
    cpdef object _next_id(self)
