cimport cython


@cython.final
cdef class InstalledStore:
    cdef public object durable
