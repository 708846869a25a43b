cimport cython

cimport majordomus.protocol.spec as spec
cimport majordomus.core.broker.encoding as speech
from majordomus.core.broker.outgoing cimport Outgoing
from majordomus.core.broker.state.registry cimport Counts, Registry
from majordomus.core.broker.state.requests cimport AcceptedRequest
from majordomus.core.broker.state.services cimport FairQueue, Service
from majordomus.core.broker.state.workers cimport RegisteredWorker


cdef unsigned long long BROKER_ID_BIT
cdef tuple DISPATCH
cdef tuple ANSWER
cdef list NO_FRAMES


@cython.final
cdef class Dispatcher:
    cdef public Registry registry
    cdef public Outgoing outgoing
    cdef public object streams
    cdef public object losses
    cdef public object hooks
    @cython.locals(registry=Registry)
    cpdef object accept(self, AcceptedRequest request)
    @cython.locals(worker=RegisteredWorker)
    cpdef object place(self, AcceptedRequest request, double now)
    cdef RegisteredWorker _choose(self, AcceptedRequest request)
    cdef FairQueue _queue_of(self, AcceptedRequest request)
    cdef object _entered(self, AcceptedRequest request)
    @cython.locals(waiting=FairQueue)
    cdef object _left(self, AcceptedRequest request)
    @cython.locals(registry=Registry, service=Service, number="unsigned long long")
    cpdef object dispatch(self, AcceptedRequest request, RegisteredWorker worker, double now)
    cdef object _remember_handle(self, RegisteredWorker worker, AcceptedRequest request)
    @cython.locals(service=Service)
    cdef object _weigh(self, RegisteredWorker worker)
    @cython.locals(request=AcceptedRequest)
    cpdef AcceptedRequest release(self, RegisteredWorker worker, unsigned long long number)
    cdef object _forget_handle(self, RegisteredWorker worker, AcceptedRequest request, unsigned long long number)
    cpdef AcceptedRequest held_as(self, RegisteredWorker worker, unsigned long long number)
    @cython.locals(request=AcceptedRequest)
    cpdef object feed(self, RegisteredWorker worker, double now)
    @cython.locals(reserved=FairQueue, request=AcceptedRequest)
    cdef AcceptedRequest _next_for(self, RegisteredWorker worker)
    @cython.locals(service=Service, order=list, request=AcceptedRequest)
    cdef AcceptedRequest _next_of_services(self, RegisteredWorker worker)
    cpdef object part(self, AcceptedRequest request, list frames, int flags, bytes metadata, double now)
    @cython.locals(counts=Counts)
    cpdef object answer(
        self,
        AcceptedRequest request,
        int status,
        list frames,
        int flags,
        bytes metadata,
        double now,
        bint heard=*,
    )
    cpdef object reject(self, AcceptedRequest request, RegisteredWorker worker, double now)
    cpdef object fail(self, AcceptedRequest request, int status, str text, double now)
    cpdef object give_up(self, AcceptedRequest request, int status, str text, double now)
    cpdef object expire(self, AcceptedRequest request, double now)
    cdef object _end(self, AcceptedRequest request, str event, double now, int status)
    @cython.locals(registry=Registry, service=Service)
    cdef object _close(self, AcceptedRequest request, int status)
    @cython.locals(message=list)
    cdef object _tell(
        self,
        AcceptedRequest request,
        int status,
        list frames,
        double now,
        bytes worker_id=*,
        int flags=*,
        bytes metadata=*,
        bint own=*,
    )
