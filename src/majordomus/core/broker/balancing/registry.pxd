cimport cython

from majordomus.core.broker.state.services cimport Service
from majordomus.core.broker.state.workers cimport Worker


@cython.locals(service=Service)
cpdef object hear_load(Worker worker)
