cimport cython

cimport majordomus.net.worker.eager_steps as steps


@cython.final
cdef class _Spawner:
    cdef public object _loop
    cdef public object _ended
    cdef public object _attributes
    cdef public object _step
    cdef public object _context
    cdef public object _task
    cdef public object _steps
    @cython.locals(over=bint)
    cpdef object spawn(self, work, about, deadline)
    @cython.locals(over=bint)
    cpdef tuple _begin(self, context, work, about, deadline)
    cpdef object _go_on(self, task)
