cimport cython

cimport majordomus.protocol.spec as spec


cdef int REFUSED
cdef Options DEFAULT


@cython.final
cdef class Options:
    cdef public bytes key
    cdef public bint detach
    cdef public object expires
    cdef public object keep


cpdef object read(int flags, bytes metadata, bint has_target)
cpdef bytes digest_of(list body)
