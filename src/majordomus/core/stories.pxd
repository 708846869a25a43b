cimport cython

from majordomus.core.requests cimport Request


@cython.final
cdef class Stories:
    cdef public double slow
    cdef public object recent
    cdef public object notable
    @cython.locals(took=double, boxes=list)
    cpdef object ended(self, Request request, double now)
