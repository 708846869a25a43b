cimport cython

from majordomus.core cimport hints
from majordomus.core.registry cimport Registry
from majordomus.core.services cimport Service
from majordomus.core.workers cimport Worker
from majordomus.protocol cimport octets, spec


@cython.locals(
    services=list, end=Py_ssize_t, n=Py_ssize_t, frames=list, name=bytes, service=Service
)
cpdef Py_ssize_t ahead(Registry registry, list batch, Py_ssize_t at) except -2
@cython.locals(header=bytes, end=Py_ssize_t)
cpdef bytes called(list frames)
@cython.locals(worker=Worker)
cpdef object fetch_workers(list workers)
