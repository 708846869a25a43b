cimport cython

cimport majordomus.core.broker.accel.arithmetic as arithmetic
from majordomus.core.broker.balancing.strategy cimport Strategy
from majordomus.core.broker.state.requests cimport AcceptedRequest
from majordomus.core.broker.state.times cimport Waits
from majordomus.core.broker.state.workers cimport RegisteredWorker


cdef double _TICKS
cdef object EXPIRED
cdef object FAILED


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
    cdef public Strategy strategy
    cdef public bint known
    cdef public bint own
    cdef public object given
    cdef public Py_ssize_t open
    cdef public int _box
    cdef public int _in_box
    cdef public double seconds
    cdef public Py_ssize_t served
    cdef public dict workers
    cdef public FairQueue waiting
    cdef public list _took
    cdef public Py_ssize_t held
    cdef public Py_ssize_t held_bytes
    cdef public double last_worker
    cdef public Waits waits
    cdef public Py_ssize_t failed
    cdef public Py_ssize_t expired
    cdef public Py_ssize_t cancelled
    cpdef RegisteredWorker choose(self, AcceptedRequest request)
    cpdef object enter(self, RegisteredWorker worker)
    cpdef object leave(self, RegisteredWorker worker)
    @cython.locals(box=int)
    cpdef object note(self, double took)
    @cython.locals(waits=Waits)
    cpdef object note_wait(self, double waited, double took)
    @cython.locals(waits=Waits)
    cpdef object note_unserved(self, double waited)
    cpdef object note_end(self, object state)
    cdef Waits _waits(self)
    cdef object _next_box(self, int box)
