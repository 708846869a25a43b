cimport cython

from majordomus.core.balancing cimport Strategy
from majordomus.core.requests cimport Request
from majordomus.core.workers cimport Worker


@cython.final
cdef class FairQueue:
    cdef public object front
    cdef public object declined
    cdef public object turns
    cdef public Py_ssize_t count
    cdef public Py_ssize_t size
    cpdef object push(self, Request request)
    cpdef object push_front(self, Request request)
    cpdef Request pop_for(self, Worker worker)
    cpdef object remove(self, Request request)
    cpdef object _forget_rejections(self, Request request)
    cdef object _entered(self, Request request)
    cdef object _left(self, Request request)


@cython.final
cdef class Service:
    cdef public bytes name
    cdef public bytes field
    cdef public Strategy strategy
    cdef public object given
    cdef public FairQueue queue
    cdef public dict workers
    cdef public Py_ssize_t open
    cdef public Py_ssize_t held
    cdef public Py_ssize_t held_bytes
    cdef public bint known
    cdef public bint own
    cdef public Py_ssize_t served
    cdef public double last_worker
    cdef public list took
