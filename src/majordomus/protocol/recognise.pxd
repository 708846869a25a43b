cimport cython

cimport majordomus.protocol.octets as octets
cimport majordomus.protocol.spec as spec


cdef tuple _MDP03


@cython.locals(at=Py_ssize_t)
cpdef tuple recognise(list frames)
cdef tuple _behind_delimiter(list frames, Py_ssize_t at)
