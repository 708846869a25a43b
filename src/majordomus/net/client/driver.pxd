cimport cython

from majordomus.net.connection.link cimport SessionConnection


cdef class Driver:
    cdef object __weakref__
    cdef public object _urls
    cdef public object _take
    cdef public object _broken
    cdef public object _finish
    cdef public object _announce
    cdef public object _forked
    cdef public object _repair
    cdef public SessionConnection _connection
    cdef public bint _monitor_unread
    cdef public double _checked_at
    cdef public object _commands
    cdef public object _main
    cdef public object _owner
    cdef public bint _hand_off
    cdef public bint _interrupted
    cdef public bint _unsent
    cdef public bint _asleep
    cdef public bint _ended
    cdef public object _thread
    cdef public object _waker
    cdef public object _wait_for
    cdef public object _io
    cdef public object _lock
    cdef public object _generation
    @cython.locals(driven=bint)
    cpdef object drive(self, done, command=*, bint check=*)
    cpdef object _check(self)
    cpdef object _check_nested(self, me)
    cpdef bint _is_owner(self, me) except -1
    @cython.locals(now=double, connection=SessionConnection, interrupted=bint)
    cpdef object _drive(self, done, command, double longest, bint check)
    cpdef object _work(self, double now, command=*)
    @cython.locals(ready=int)
    cpdef object _check_connection(self, double now)
    cpdef object _read_monitor(self, int ready, double now)
    @cython.locals(connection=SessionConnection, now=double, wait=double, ready=int, more=bint)
    cpdef double _wait(self, double most) except? -1
