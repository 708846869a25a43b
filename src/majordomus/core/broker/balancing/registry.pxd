cimport cython

from majordomus.core.broker.state.services cimport Service
from majordomus.core.broker.state.workers cimport RegisteredWorker


@cython.locals(service=Service)
cpdef object report_load(RegisteredWorker worker)
