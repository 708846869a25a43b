cimport cython

cimport majordomus.protocol.spec as spec
from majordomus.core.broker.dispatch cimport Dispatcher
from majordomus.core.broker.state.registry cimport Registry
from majordomus.core.broker.state.requests cimport AcceptedRequest
from majordomus.core.broker.state.services cimport FairQueue, Service
from majordomus.core.broker.state.workers cimport RegisteredWorker


@cython.final
cdef class Queueing:
    cdef public Registry registry
    cdef public Dispatcher dispatcher
    cdef public object streams
    cdef public object ends
    @cython.locals(registry=Registry, worker=RegisteredWorker, queue=FairQueue)
    cpdef object place(self, AcceptedRequest request, double now)
    @cython.locals(target=RegisteredWorker)
    cdef RegisteredWorker _choose(self, AcceptedRequest request)
    cdef object _dispatch(self, AcceptedRequest request, RegisteredWorker worker, double now)
    cdef FairQueue _queue_of(self, AcceptedRequest request)
    @cython.locals(request=AcceptedRequest)
    cpdef object feed(self, RegisteredWorker worker, double now)
    cpdef object reweigh(self, RegisteredWorker worker, double now)
    @cython.locals(reserved=FairQueue, request=AcceptedRequest)
    cdef AcceptedRequest _next_for(self, RegisteredWorker worker)
    @cython.locals(service=Service, order=list, request=AcceptedRequest)
    cdef AcceptedRequest _next_of_services(self, RegisteredWorker worker)
    cpdef object reject(self, AcceptedRequest request, RegisteredWorker worker, double now)
    cpdef object ended_at(self, AcceptedRequest request, RegisteredWorker worker, double now)
