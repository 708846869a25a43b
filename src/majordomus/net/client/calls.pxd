cimport cython

from majordomus.core.client.calls cimport Final
from majordomus.core.client.session cimport ClientSession


@cython.final
@cython.freelist(64)
cdef class CallOptions:
    cdef public bytes service
    cdef public list frames
    cdef public double timeout
    cdef public int flags
    cdef public bytes to
    cdef public bytes metadata
    cdef public bytes implied
    cdef public int command


@cython.freelist(64)
cdef class PendingCall:
    cdef public CallOptions ask
    cdef public bint reads
    cdef public Py_ssize_t unsaid
    cdef public double began
    cdef public object id
    cdef public object parts
    cdef public object outcome
    cdef public object notify
    cdef public object waiter
    cpdef object prepare(self, CallOptions ask, notify, bint reads)
    cpdef object end(self, outcome)
    cpdef object tell(self)


cdef class ConversationCall(PendingCall):
    cdef public object sends
    cdef public object last
    cdef public dict _watchers
    cdef public list _waiters


cdef class PendingCalls:
    cdef public ClientSession session
    cdef public object _urls
    cdef public object _up
    cdef public object _refusal
    cdef public bint _speaks_new
    cdef public dict _open
    cdef public object _fault
    cdef public list _leaving
    cdef public object hub
    @cython.locals(ask=CallOptions, left=double, metadata=bytes)
    cpdef object begin(self, PendingCall call, double now, bint restart=*)
    cdef public Py_ssize_t _told
    cpdef object launch(self, PendingCall call, line)
    cpdef object take(self, list events)
    @cython.locals(ended=PendingCall)
    cpdef object _answered(self, Final event)


@cython.locals(name=bytes, ask=CallOptions)
cpdef CallOptions pack_ask(service, body, double timeout, int flags, bytes to, metadata)
@cython.locals(flags=int, call=PendingCall)
cpdef PendingCall make_call(service, body, double timeout, bint fail_fast, bint once, bytes to, metadata)
cpdef object result(PendingCall call)
cpdef object final(PendingCall call)
cpdef object _reply(Final outcome)
