cimport cython

from majordomus.core.broker.balancing.strategy cimport Strategy
from majordomus.core.broker.state.requests cimport Request
from majordomus.core.broker.state.workers cimport Worker


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


# What every request reads or writes stands first, side by side: two lines of a processor's cache.
@cython.final
cdef class Service:
    cdef public bytes name
    cdef public Worker only_worker
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
    cpdef Worker choose(self, Request request)
    @cython.locals(only=Worker)
    cpdef object enter(self, Worker worker)
    cpdef object weigh(self, Worker worker)
    cpdef object leave(self, Worker worker)
    cpdef object note(self, int box)
    cdef object _next_box(self, int box)
