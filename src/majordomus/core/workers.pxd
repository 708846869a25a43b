cimport cython

from majordomus.core.balancing cimport Place
from majordomus.core.peers cimport Peer
from majordomus.core.services cimport FairQueue


@cython.final
cdef class Worker:
    cdef public Peer peer
    cdef public bytes id
    cdef public object dialect
    cdef public Py_ssize_t capacity
    cdef public object state
    cdef public dict services
    cdef public dict metadata
    cdef public list order
    cdef public dict held
    cdef public dict handles
    cdef public set undelivered
    cdef public FairQueue reserved
    cdef public bint reserved_last
    cdef public object load
    cdef public Place place
    cdef public double busy_since
    cdef public double last_beat_sent
    cdef public object answered
    cpdef bint has_room(self) except -1
    cpdef object move(self, str event)
