cimport cython


@cython.final
cdef class InstalledHooks:
    cdef public object holding
