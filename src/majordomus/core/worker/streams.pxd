cimport cython

from majordomus.core.session.outbox cimport Outbox


@cython.final
cdef class JobStreams:
    cdef public dict of
    cdef public Outbox _outbox
