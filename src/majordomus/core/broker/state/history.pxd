cimport cython

cimport majordomus.core.broker.accel.links as links
from majordomus.core.broker.state.account cimport Account
from majordomus.core.broker.state.requests cimport AcceptedRequest
from majordomus.core.broker.state.services cimport Service


cdef object ANSWERED
cdef Py_ssize_t _LAST


@cython.final
cdef class History:
    cdef public double slow
    cdef public object notable
    cdef public list _recent
    cdef public dict traces
    cdef public Account account
    cdef public long long count
    cdef public Py_ssize_t _most
    cdef public Py_ssize_t _at
    @cython.locals(took=double, before=AcceptedRequest, service=Service, at=Py_ssize_t)
    cpdef object ended(self, AcceptedRequest request, double now)
