cimport cython

cimport majordomus.core.broker.accel.links as links
cimport majordomus.core.broker.encoding as encoding
cimport majordomus.protocol.spec as spec
from majordomus.core.broker.outgoing cimport Outgoing
from majordomus.core.broker.state.registry cimport Registry
from majordomus.core.broker.state.requests cimport AcceptedRequest
from majordomus.core.broker.state.services cimport Service
from majordomus.core.broker.state.workers cimport RegisteredWorker


cdef unsigned long long BROKER_ID_BIT
cdef object MDP03
cdef object REQUEST
cdef object SERVING
cdef tuple DISPATCH


@cython.final
cdef class Dispatcher:
    cdef public Registry registry
    cdef public Outgoing outgoing
    @cython.locals(
        registry=Registry,
        service=Service,
        number="unsigned long long",
        message=list,
        at=int,
        first=bint,
    )
    cpdef object dispatch(self, AcceptedRequest request, RegisteredWorker worker, double now)
    @cython.locals(request=AcceptedRequest)
    cpdef AcceptedRequest release(self, RegisteredWorker worker, unsigned long long dispatch_id)
    cpdef AcceptedRequest held_as(self, RegisteredWorker worker, unsigned long long dispatch_id)
    cpdef object add_worker(self, RegisteredWorker worker, Service service)
    @cython.locals(free=bint, service=Service)
    cpdef object weigh(self, RegisteredWorker worker)
    cdef object _remember_handle(self, RegisteredWorker worker, AcceptedRequest request)
    cdef object _forget_handle(
        self, RegisteredWorker worker, AcceptedRequest request, unsigned long long dispatch_id
    )
