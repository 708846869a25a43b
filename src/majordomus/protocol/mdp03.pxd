cimport cython

from majordomus.protocol cimport octets


@cython.locals(
    command=int,
    flags=int,
    code=int,
    ttl="unsigned int",
    number="unsigned long long",
    length=int,
    middle=Py_ssize_t,
    end=Py_ssize_t,
    whole=bytes,
)
cpdef tuple parse(header)
cpdef bytes pack(
    command, flags=*, code=*, id=*, ttl=*, bytes service=*, bytes address=*, bytes metadata=*
)
