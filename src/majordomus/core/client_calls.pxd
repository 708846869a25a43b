cimport cython

from majordomus.core.session_timers cimport Timers


@cython.final
@cython.freelist(64)
cdef class Call:
    cdef public unsigned long long number
    cdef public bytes tail
    cdef public list body
    cdef public double deadline
    cdef public int flags
    cdef public bint restart
    cdef public double look
    cdef public object state
    cdef public unsigned long long wire
    cdef public int sends
    cdef public int tries
    cdef public object last
    cdef public double wake
    cdef public object stream
    cdef public int command


@cython.final
cdef class Calls:
    cdef public dict open
    cdef public Timers timers
    cdef public dict aliases
    cdef public dict refused
    cdef public object waiting
    cdef public dict resting
    cdef public Call current
