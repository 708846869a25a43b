cimport cython

from majordomus.core.session.outbox cimport SessionOutbox


@cython.final
cdef class DispatchStreams:
    cdef public dict of
    cdef public SessionOutbox _outbox
