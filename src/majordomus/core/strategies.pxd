cimport cython

from majordomus.core.services cimport Service
from majordomus.core.workers cimport Worker


@cython.locals(service=Service)
cpdef object hear_load(Worker worker)
