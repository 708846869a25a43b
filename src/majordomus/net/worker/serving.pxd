cimport cython

from majordomus.core.worker.session cimport WorkerSession
from majordomus.core.worker.session_base cimport Dispatch
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


cdef class Serving:
    cdef public object _loop
    cdef public object _spawner
    cdef public object _pool
    cdef public object _processes
    cdef public dict _offers
    cdef public object _results
    cdef public object _thread
    cdef public bint _collecting
    cdef public bint _closing
    cdef public object _idle
    cdef public bint _awaited
    cdef public ConnectionDesk _at
    cdef public bint _said
    @cython.locals(offer=Offer, request=Request, one=Invocation)
    cdef object _start(self, ConnectionDesk post, Dispatch job)
    cdef object _touch(self, ConnectionDesk post)
    cdef object _give(self, Invocation one, status, list frames)
