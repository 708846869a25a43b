cimport cython

from majordomus.core.session.connection cimport Connection
from majordomus.core.session.outbox cimport SessionOutbox


@cython.final
cdef class ClientStreams:
    cdef public dict _open
    cdef public SessionOutbox _outbox
    cdef public Connection _connection
    cdef public object _too_large
    cdef public list _launched
    cdef public list _ripe
    cdef public double due
    cpdef object taken(self)
