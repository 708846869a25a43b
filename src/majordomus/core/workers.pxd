cimport cython

from majordomus.core.balancing cimport Place
from majordomus.core.peers cimport Peer
from majordomus.core.requests cimport Request
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
    cdef public Py_ssize_t holding
    cdef public Request oldest
    cdef public Request newest
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
    @cython.locals(newest=Request)
    cpdef object hold(self, Request request)
    @cython.locals(older=Request, newer=Request)
    cpdef object let_go(self, Request request)
    cpdef object move(self, str event)
