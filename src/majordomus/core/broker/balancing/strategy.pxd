cimport cython

cimport majordomus.core.broker.accel.prefetch_hints as hints
from majordomus.core.broker.state.requests cimport Request
from majordomus.core.broker.state.workers cimport Worker


cdef class LeastOutstanding


cdef class Strategy:
    cdef public object dice
    cdef public dict free
    cpdef Worker choose(self, Request request)
    cpdef object put(self, Worker worker)
    cpdef object drop(self, Worker worker)


@cython.final
cdef class Place:
    cdef public LeastOutstanding giver
    cdef public Worker worker
    cdef public Py_ssize_t level
    cdef public bint listed
    cdef public Place before
    cdef public Place after
    cpdef object stand_before(self, Place other)
    cpdef object leave(self)


cdef class LeastOutstanding(Strategy):
    cdef public Worker _only
    cdef public list _levels
    cdef public dict _at
    cdef public list _heap
    cdef public dict _weights
    @cython.locals(only=Worker)
    cpdef object put(self, Worker worker)
    @cython.locals(level=Py_ssize_t, place=Place, head=Place)
    cdef object _rank(self, Worker worker)
    @cython.locals(place=Place)
    cdef Place _place_of(self, Worker worker)
    @cython.locals(place=Place)
    cpdef object drop(self, Worker worker)
    @cython.locals(lowest=Py_ssize_t, head=Place, place=Place, only=Worker)
    cpdef Worker choose(self, Request request)
    cdef object _look_ahead(self, Place place)
