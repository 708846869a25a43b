cimport cython

cimport majordomus.net.worker.eager_steps as steps


@cython.final
cdef class _EagerSpawner:
    cdef public object _loop
    cdef public object _ended
    cdef public object _attributes
    cdef public dict _current_tasks
    cdef public object _step
    cdef public object _context
    cdef public object _task
    cdef public object _continuation
    @cython.locals(over=bint, references=Py_ssize_t, current=dict)
    cpdef object spawn(self, work, subject, deadline)
    @cython.locals(over=bint, step=tuple)
    cpdef tuple _first_step(self, context, work, subject, deadline)
    cpdef object _release_task(self, task)
