cimport cython

from majordomus.core.worker.session_base cimport Dispatch
from majordomus.net.worker.request cimport Request
from majordomus.net.worker.running cimport ConnectionDesk, Offer, Invocation


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
