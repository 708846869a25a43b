cimport cython


cdef class Call:
    cdef public object ask
    cdef public bint reads
    cdef public Py_ssize_t unsaid
    cdef public double began
    cdef public object id
    cdef public object parts
    cdef public object outcome
    cdef public object notify
    cdef public object waiter
    cpdef object end(self, outcome)
    cpdef object tell(self)


cdef class TalkCall(Call):
    cdef public object sends
    cdef public object last
    cdef public dict _watchers
    cdef public list _waiters


cdef class Calls:
    cdef public object session
    cdef public object _urls
    cdef public object _up
    cdef public object _refusal
    cdef public dict _open
    cdef public object _fault
    cdef public list _leaving
    cdef public object hub
