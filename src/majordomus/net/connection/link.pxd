cimport cython

from majordomus.core.session.connection cimport Connection
from majordomus.core.session.machine cimport Session


cdef class SessionConnection:
    cdef object __weakref__
    cdef public Session session
    cdef public Connection _state
    cdef public object refusal
    cdef public dict attempts
    cdef public bint stale
    cdef public object _access
    cdef public object _where
    cdef public object _opened
    cdef public object _closing
    cdef public object link
    cdef public object _url
    cdef public bint _begun
    cdef public double _retry_at
    cdef public double _retry_delay
    cdef public long long _received
    cdef public long long _truncated
    cdef public Py_ssize_t _most
    cdef public object _home
    cdef public object _probe
    cdef public double _look_at
    cdef public object _untried
    cpdef object open(self, double now)
    cpdef bint is_away(self) except -1
    cpdef object read_monitor(self, double now)
    @cython.locals(session=Session, batch=list, frames=list)
    cpdef bint receive(self, double now) except -1
    @cython.locals(session=Session, sends=list, tags=list, new=list, events=list)
    cpdef list flush(self, double now)
    @cython.locals(deadline=double)
    cpdef double next_deadline(self) except? -1
    @cython.locals(connection=Connection)
    cpdef object _tick(self, double now)
    cpdef object _send(self, list sends, list tags, double now)
