cimport cython

from majordomus.core.worker.session cimport WorkerSession
from majordomus.net.worker.request cimport Request


cdef class ConnectionDesk:
    cdef public WorkerSession session
    cdef public object line
    cdef public dict running


@cython.final
cdef class Offer:
    cdef public object name
    cdef public object handler
    cdef public object function
    cdef public bint in_process
    cdef public bint threaded
    cdef public bint simple


@cython.final
@cython.freelist(64)
cdef class Invocation:
    cdef public ConnectionDesk post
    cdef public object job
    cdef public Request request
    cdef public Offer offer
    cdef public bint over
    cdef public object task
    cdef public object ahead
    cdef public object flow
    cpdef object begin(self, ConnectionDesk post, job, Request request, Offer offer)
