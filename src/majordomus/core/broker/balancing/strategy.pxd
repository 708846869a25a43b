cimport cython

cimport majordomus.core.broker.accel.prefetch_hints as hints
from majordomus.core.broker.state.requests cimport AcceptedRequest
from majordomus.core.broker.state.workers cimport RegisteredWorker


cdef class LeastOutstanding


cdef class Strategy:
    cdef public object dice
    cdef public dict free
    cpdef RegisteredWorker choose(self, AcceptedRequest request)
    cpdef object put(self, RegisteredWorker worker)
    cpdef object drop(self, RegisteredWorker worker)


@cython.final
cdef class RingNode:
    cdef public LeastOutstanding giver
    cdef public RegisteredWorker worker
    cdef public Py_ssize_t level
    cdef public bint listed
    cdef public RingNode before
    cdef public RingNode after
    cpdef object stand_before(self, RingNode other)
    cpdef object leave(self)


cdef class LeastOutstanding(Strategy):
    cdef public RegisteredWorker _only
    cdef public list _levels
    cdef public dict _at
    cdef public list _heap
    cdef public dict _weights
    @cython.locals(only=RegisteredWorker)
    cpdef object put(self, RegisteredWorker worker)
    @cython.locals(level=Py_ssize_t, place=RingNode, head=RingNode)
    cdef object _rank(self, RegisteredWorker worker)
    @cython.locals(place=RingNode)
    cdef RingNode _place_of(self, RegisteredWorker worker)
    @cython.locals(place=RingNode)
    cpdef object drop(self, RegisteredWorker worker)
    @cython.locals(lowest=Py_ssize_t, head=RingNode, place=RingNode, only=RegisteredWorker)
    cpdef RegisteredWorker choose(self, AcceptedRequest request)
    cdef object _look_ahead(self, RingNode place)
