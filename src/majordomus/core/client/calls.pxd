cimport cython

from majordomus.core.session.timers cimport TimedItem, TimerQueue


# No object here can be part of a cycle, so the collector need not visit them.
@cython.no_gc
@cython.freelist(64)
cdef class Final:
    cdef public object call
    cdef public int status
    cdef public list frames
    cdef public object worker


@cython.final
@cython.no_gc
cdef class FinalWithMetadata(Final):
    cdef public bytes metadata


@cython.locals(made=Final)
cpdef Final make_final(call, int status, list frames, worker)


@cython.final
@cython.no_gc
cdef class Call(TimedItem):
    cdef public bytes tail
    cdef public list body
    cdef public double deadline
    cdef public int flags
    cdef public bint restart
    cdef public object state
    cdef public unsigned long long wire
    cdef public int sends
    cdef public int tries
    cdef public object last
    cdef public double wake
    cdef public object stream
    cdef public int command
    cpdef object fill(
        self, number, bytes tail, list body, double deadline, int flags, bint restart
    )


@cython.locals(made=Call)
cpdef Call make_call(
    number, bytes tail, list body, double deadline, int flags, bint restart
)


@cython.final
cdef class Calls:
    cdef public dict open
    cdef public TimerQueue timers
    cdef public dict aliases
    cdef public dict refused
    cdef public object waiting
    cdef public dict resting
    cdef public Call current
