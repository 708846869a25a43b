cimport cython

cimport majordomus.core.broker.accel.arithmetic as arithmetic
cimport majordomus.core.broker.durable.options as options
cimport majordomus.protocol.spec as spec
from majordomus.core.broker.state.workers cimport RegisteredWorker

from majordomus.core.broker.completion cimport Completion
from majordomus.core.broker.durable.installed cimport InstalledStore
from majordomus.core.broker.hooks.installed cimport InstalledHooks
from majordomus.core.broker.queueing cimport Queueing
from majordomus.core.broker.state.account cimport Account
from majordomus.core.broker.state.peers cimport Peer
from majordomus.core.broker.state.registry cimport Registry
from majordomus.core.broker.state.services cimport Service
from majordomus.core.broker.state.requests cimport AcceptedRequest
from majordomus.core.broker.state.user_account cimport UserAccount


cdef int UNUSUAL_FLAGS
cdef int MORE_OR_DURABLE
cdef int _KEPT
cdef int STREAM_WITHOUT_ANSWER
cdef Py_ssize_t _FRAME
cdef Py_ssize_t _REQUEST


@cython.final
cdef class Admission:
    cdef public Registry registry
    cdef public Py_ssize_t _max_frames
    cdef public Py_ssize_t _max_message
    cdef public Py_ssize_t _max_open
    cdef public double _default_ttl
    cdef public double _max_ttl
    cdef public bytes _durable_name
    cdef public Queueing queueing
    cdef public Completion completion
    cdef public object authorization
    cdef public InstalledHooks hooks
    cdef public InstalledStore store
    cdef public object commands
    @cython.locals(
        size=Py_ssize_t,
        cost=Py_ssize_t,
        account=Account,
        user=UserAccount,
        service=Service,
        target=RegisteredWorker,
        request=AcceptedRequest,
    )
    cpdef object admit(
        self,
        Peer peer,
        dialect,
        tuple envelope,
        unsigned long long id,
        int flags,
        double ttl,
        bytes name,
        bytes address,
        bytes metadata,
        list message,
        double now,
    )
    cdef object _check_unusual(self, int flags, bytes address, bytes metadata, bytes name)
    cdef object _admit_durable(self, AcceptedRequest request, bytes field, double now)
    @cython.locals(service=Service, target=RegisteredWorker)
    cpdef object route(self, AcceptedRequest request, double now)
    @cython.locals(service=Service)
    cpdef Service service(self, bytes name)
    cpdef bint too_large(self, list body) except -1
    @cython.locals(size=Py_ssize_t)
    cpdef bint reply_too_large(self, list message) except -1
    @cython.locals(count=Py_ssize_t, size=Py_ssize_t)
    cdef Py_ssize_t _size(self, list message) except -1
