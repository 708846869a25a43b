cimport cython

cimport majordomus.protocol.octets as octets


cdef int _MAPS
cdef int REQUEST
cdef Py_ssize_t SHORTEST
cdef Py_ssize_t _SERVICE_AT


@cython.final
@cython.freelist(8)
cdef class Fields:
    cdef public int command
    cdef public int flags
    cdef public int code
    cdef public unsigned long long id
    cdef public unsigned int ttl
    cdef public bytes service
    cdef bytes _name
    cdef public bytes address
    cdef public bytes metadata
    cpdef object expect(self, bytes name)
    cpdef object read(self, header)
    @cython.locals(whole=bytes, size=Py_ssize_t, length=int, middle=Py_ssize_t, end=Py_ssize_t)
    cpdef object read_recognised(self, header)


@cython.locals(found=Fields)
cpdef Fields parse(header)
@cython.locals(header=bytes, end=Py_ssize_t)
cpdef Py_ssize_t called_name_hash(list frames) except? -2
cpdef bytes pack(
    command, flags=*, code=*, id=*, ttl=*, bytes service=*, bytes address=*, bytes metadata=*
)
