cimport cython


@cython.final
cdef class UserAccount:
    cdef object __weakref__
    cdef public str user
    cdef public Py_ssize_t held
    cdef public Py_ssize_t most
    cdef public Py_ssize_t topics
