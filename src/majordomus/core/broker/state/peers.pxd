cimport cython

from majordomus.core.broker.state.requests cimport AcceptedRequest
from majordomus.core.broker.state.services cimport Service
from majordomus.core.broker.state.user_account cimport UserAccount
from majordomus.core.broker.state.workers cimport RegisteredWorker


cpdef object conversation(id, tuple envelope)


@cython.final
cdef class PeerOutbox:
    cdef public object messages
    cdef public Py_ssize_t size
    cdef public Py_ssize_t cost
    cdef public double delay


# What every message reads or writes stands first, side by side: two lines of a processor's cache.
@cython.final
cdef class Peer:
    cdef public bytes id
    cdef public object dialect
    cdef public RegisteredWorker worker
    cdef public bytes prefix
    cdef public PeerOutbox outbox
    cdef public double last_sent
    cdef public double last_received
    cdef public object state
    cdef public list requests
    cdef public dict by_key
    cdef public unsigned long long highest_id
    cdef public Service last_service
    cdef public Py_ssize_t held
    cdef public UserAccount account
    cdef public bytes handle
    cdef public str user
    cdef public object identity
    cdef public tuple groups
    cdef public Py_ssize_t queued
    cdef public Py_ssize_t queued_bytes
    cdef public double last_delay
    cdef public double flushed
    cdef public dict timer
    cdef public object subscriber
    cdef public bytes own_handle
    cpdef object forget_key(self, AcceptedRequest request)
    cpdef AcceptedRequest find(self, object key)
    cpdef object move(self, str event)
