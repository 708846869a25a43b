cimport cython

cimport majordomus.core.broker.accel.arithmetic as arithmetic
from majordomus.core.broker.state.requests cimport AcceptedRequest


cdef double _PER_SECOND
cdef Py_ssize_t _MOST_GAPS


cdef class TimerWheel:
    cdef public dict _buckets
    cdef public list _steps
    cdef public long long _last_step
    cdef public object _last
    cdef object _new_bucket(self)
    cdef object _bucket(self, long long step)
    cdef object _drop(self)
    cpdef list due(self, double now)
    cpdef double next(self) except? -1


cdef class Deadlines(TimerWheel):
    @cython.locals(step="long long", bucket=dict)
    cpdef dict add(self, object item, double when)
    cdef object _new_bucket(self)


@cython.final
cdef class Bucket:
    cdef public list requests
    cdef public Py_ssize_t count
    cpdef object remove(self, AcceptedRequest request)
    @cython.locals(index=Py_ssize_t, waiting=list, request=AcceptedRequest)
    cdef object _close_gaps(self)


cdef class RequestDeadlines(TimerWheel):
    @cython.locals(step="long long", bucket=Bucket)
    cpdef object add(self, AcceptedRequest request)
    cdef object _new_bucket(self)
