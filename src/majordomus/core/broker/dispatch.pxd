cimport cython

cimport majordomus.protocol.spec as spec
cimport majordomus.core.broker.encoding as speech
from majordomus.core.broker.outgoing cimport Outgoing
from majordomus.core.broker.state.registry cimport Counts, Registry
from majordomus.core.broker.state.requests cimport Request
from majordomus.core.broker.state.services cimport FairQueue, Service
from majordomus.core.broker.state.workers cimport Worker


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
    cpdef object accept(self, Request request)
    @cython.locals(worker=Worker)
    cpdef object place(self, Request request, double now)
    @cython.locals(service=Service)
    cdef Worker _choose(self, Request request)
    cdef FairQueue _queue_of(self, Request request)
    cdef object _entered(self, Request request)
    @cython.locals(waiting=FairQueue)
    cdef object _left(self, Request request)
    @cython.locals(registry=Registry, service=Service, number="unsigned long long")
    cpdef object dispatch(self, Request request, Worker worker, double now)
    cdef object _remember_handle(self, Worker worker, Request request)
    @cython.locals(service=Service, only=Service)
    cdef object _weigh(self, Worker worker)
    @cython.locals(request=Request)
    cpdef Request release(self, Worker worker, unsigned long long number)
    cdef object _forget_handle(self, Worker worker, Request request, unsigned long long number)
    cpdef Request held_as(self, Worker worker, unsigned long long number)
    @cython.locals(request=Request)
    cpdef object feed(self, Worker worker, double now)
    @cython.locals(reserved=FairQueue, request=Request)
    cdef Request _next_for(self, Worker worker)
    @cython.locals(only=Service)
    cdef Request _next_of_services(self, Worker worker)
    cpdef object part(self, Request request, list frames, int flags, bytes metadata, double now)
    @cython.locals(counts=Counts)
    cpdef object answer(
        self,
        Request request,
        int status,
        list frames,
        int flags,
        bytes metadata,
        double now,
        bint heard=*,
    )
    cpdef object reject(self, Request request, Worker worker, double now)
    cpdef object fail(self, Request request, int status, str text, double now)
    cpdef object give_up(self, Request request, int status, str text, double now)
    cpdef object expire(self, Request request, double now)
    cdef object _end(self, Request request, str event, double now, int status)
    @cython.locals(registry=Registry, service=Service)
    cdef object _close(self, Request request, int status)
    @cython.locals(message=list)
    cdef object _tell(
        self,
        Request request,
        int status,
        list frames,
        double now,
        bytes worker_id=*,
        int flags=*,
        bytes metadata=*,
        bint own=*,
    )
