cpdef tuple recognise(list frames)
cdef tuple _behind_delimiter(list frames, Py_ssize_t at)
