cimport cython

from majordomus.core.broker.balancing.strategy cimport Strategy
from majordomus.core.broker.state.requests cimport AcceptedRequest
from majordomus.core.broker.state.workers cimport RegisteredWorker


@cython.final
cdef class FairQueue:
    cdef public object front
    cdef public object declined
    cdef public object turns
    cdef public Py_ssize_t count
    cdef public Py_ssize_t size
    cpdef object push(self, AcceptedRequest request)
    cpdef object push_front(self, AcceptedRequest request)
    cpdef AcceptedRequest pop_for(self, RegisteredWorker worker)
    cpdef object remove(self, AcceptedRequest request)
    cpdef object _forget_rejections(self, AcceptedRequest request)
    cdef object _entered(self, AcceptedRequest request)
    cdef object _left(self, AcceptedRequest request)


# What every request reads or writes stands first, side by side: two lines of a processor's cache.
@cython.final
cdef class Service:
    cdef public bytes name
    cdef public RegisteredWorker newest_worker
    cdef public Py_ssize_t open
    cdef public Py_ssize_t served
    cdef public int _box
    cdef public int _in_box
    cdef public bint known
    cdef public bint own
    cdef public object given
    cdef public Strategy strategy
    cdef public dict workers
    cdef public FairQueue waiting
    cdef public list _took
    cdef public Py_ssize_t held
    cdef public Py_ssize_t held_bytes
    cdef public double last_worker
    cpdef RegisteredWorker choose(self, AcceptedRequest request)
    cpdef object enter(self, RegisteredWorker worker)
    cpdef object weigh(self, RegisteredWorker worker)
    cpdef object leave(self, RegisteredWorker worker)
    cpdef object note(self, int box)
    cdef object _next_box(self, int box)
