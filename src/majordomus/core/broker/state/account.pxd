cimport cython

from majordomus.core.broker.state.peers cimport Peer
from majordomus.core.broker.state.requests cimport AcceptedRequest
from majordomus.core.broker.state.user_account cimport UserAccount
from majordomus.core.broker.state.workers cimport RegisteredWorker


cdef Py_ssize_t _REQUEST
cdef Py_ssize_t _FRAME


@cython.final
cdef class Account:
    cdef public Py_ssize_t held
    cdef public Py_ssize_t most
    cdef public Py_ssize_t most_peer
    cdef public Py_ssize_t most_user
    cdef public object users
    cdef public UserAccount anonymous
    cdef public Py_ssize_t outboxes
    cdef public Py_ssize_t subscriptions
    cdef public Py_ssize_t registrations
    cdef public Py_ssize_t stories
    cdef public Py_ssize_t peers
    cpdef void charge(self, Peer peer, Py_ssize_t cost) noexcept
    cpdef bint exceeds(self, Peer peer, Py_ssize_t cost) noexcept
    cpdef bint exceeds_reserve(self, Py_ssize_t cost) noexcept
    cpdef object grow(self, AcceptedRequest request, Py_ssize_t cost)
    cpdef object recount(self, AcceptedRequest request)
    cpdef object keep_slot(self, RegisteredWorker worker, AcceptedRequest request)
    cpdef object free_slot(self, RegisteredWorker worker, AcceptedRequest request)
    cpdef object change_outbox(self, Peer peer, Py_ssize_t cost)
    cpdef object change_stories(self, Py_ssize_t cost)



@cython.locals(cost=Py_ssize_t)
cpdef Py_ssize_t cost_of(AcceptedRequest request) except -1
