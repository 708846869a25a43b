cimport cython

from majordomus.core.session_outbox cimport Outbox


@cython.final
cdef class JobStreams:
    cdef public dict of
    cdef public Outbox _outbox
