cimport cython


cdef class Waiter


@cython.final
cdef class Wakeups:
    cdef public list _due
    cdef public object _loop
    cdef public object over
    @cython.locals(made=Waiter)
    cpdef Waiter waiter(self)
    cpdef object add(self, Waiter waiter)
    @cython.locals(waiter=Waiter)
    cpdef object wake(self, list due)


@cython.final
@cython.freelist(64)
cdef class Waiter:
    cdef public bint _asyncio_future_blocking
    cdef public Wakeups _wakeups
    cdef public object _loop
    cdef public bint _done
    cdef public bint _cancelled
    cdef public object _message
    cdef public object _callback
    cdef public object _context
    cpdef object fill(self, Wakeups wakeups, loop)
    cpdef object complete(self)
    cpdef object wake(self)
