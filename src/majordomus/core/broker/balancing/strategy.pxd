cimport cython

cimport majordomus.core.broker.accel.links as links
from majordomus.core.broker.balancing.ring cimport RingNode
from majordomus.core.broker.state.requests cimport AcceptedRequest
from majordomus.core.broker.state.workers cimport RegisteredWorker


cdef class Strategy:
    cdef public object dice
    cdef public dict free
    cpdef RegisteredWorker choose(self, AcceptedRequest request)
    cpdef object put(self, RegisteredWorker worker)
    cpdef object drop(self, RegisteredWorker worker)


cdef class LeastOutstanding(Strategy):
    cdef public RegisteredWorker _only_worker
    cdef public list _levels
    cdef public dict _nodes
    cdef public list _heap
    cdef public Py_ssize_t _lowest
    cdef public dict _weights
    @cython.locals(level=Py_ssize_t, node=RingNode, head=RingNode)
    cpdef object put(self, RegisteredWorker worker)
    @cython.locals(node=RingNode)
    cpdef object drop(self, RegisteredWorker worker)
    @cython.locals(head=RingNode, node=RingNode, only=RegisteredWorker)
    cpdef RegisteredWorker choose(self, AcceptedRequest request)
    @cython.final
    @cython.locals(head=RingNode)
    cdef RingNode _rise(self)
    @cython.final
    @cython.locals(only=RegisteredWorker, node=RingNode)
    cdef RingNode _enter(self, RegisteredWorker worker)
    @cython.final
    @cython.locals(node=RingNode)
    cdef RingNode _node_of(self, RegisteredWorker worker)
