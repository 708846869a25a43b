cimport cython

cimport majordomus.core.broker.accel.prefetch_hints as hints
from majordomus.core.broker.state.workers cimport RegisteredWorker


@cython.final
cdef class RingNode:
    cdef public object owner
    cdef public RegisteredWorker worker
    cdef public Py_ssize_t level
    cdef public bint listed
    cdef public RingNode before
    cdef public RingNode after
    cpdef object unlink(self)
    @cython.locals(node=RingNode)
    cpdef object look_ahead(self, Py_ssize_t workers)
