cimport cython

from majordomus.core.broker.durable.requests cimport DurableRequest
from majordomus.core.broker.state.peers cimport Peer
from majordomus.core.broker.state.registry cimport Registry
from majordomus.core.broker.state.services cimport FairQueue, Service


@cython.final
cdef class ServiceBacklog:
    cdef public object turns
    cdef public dict placed
    cdef public Py_ssize_t count
    cpdef object push(self, DurableRequest job)
    cpdef DurableRequest pop(self, bint has_space)
    cpdef object remove(self, DurableRequest job)
    cpdef object enter(self, Peer peer)
    @cython.locals(placed=Py_ssize_t)
    cpdef object leave(self, Peer peer)


@cython.final
cdef class Backlog:
    cdef public Registry registry
    cdef public dict services
    @cython.locals(found=ServiceBacklog)
    cpdef ServiceBacklog of(self, bytes name)
    @cython.locals(registry=Registry, service=Service)
    cpdef bint has_space(self, bytes name) except -1
    @cython.locals(registry=Registry, service=Service, queue=FairQueue)
    cpdef bint is_used(self, bytes name, Py_ssize_t share) except -1
    @cython.locals(own=ServiceBacklog)
    cpdef object tidy(self, bytes name)
