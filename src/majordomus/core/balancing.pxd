cimport cython

from majordomus.core.requests cimport Request
from majordomus.core.workers cimport Worker


cdef class Strategy:
    cdef public object dice
    cdef public dict free
    cpdef Worker choose(self, Request request)
    cpdef object put(self, Worker worker)
    cpdef object drop(self, Worker worker)


cdef class LeastOutstanding(Strategy):
    cdef public list _levels
    cdef public dict _at
    cdef public list _heap
    cdef public list _listed
    cdef public dict _weights
