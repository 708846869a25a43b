cimport cython

from majordomus.core.client.calls cimport Final
from majordomus.core.client.session cimport ClientSession
from majordomus.net.bodies cimport Reply
from majordomus.net.client.waiter cimport Waiter, Wakeups
from majordomus.net.connection.async_link cimport AsyncSessionConnection

cdef dict _names


@cython.final
@cython.no_gc  # it holds bytes and numbers, so it is part of no cycle
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
    cdef public CallOptions options
    cdef public bint reads
    cdef public Py_ssize_t unreported
    cdef public double began
    cdef public object id
    cdef public object parts
    cdef public object outcome
    cdef public object notify
    cdef public object waiter
    cdef public Waiter awaited
    cpdef object prepare(self, CallOptions options, notify, bint reads)
    cpdef object end(self, outcome)
    cpdef object wake(self)


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
    cdef public object _tried
    cdef public bint _has_metadata
    cdef public dict _open
    cdef public object _fault
    cdef public list _unsent
    cdef public object hub
    cdef public Py_ssize_t _last_answers
    cdef public Py_ssize_t _gathered
    @cython.locals(options=CallOptions, left=double, metadata=bytes)
    cpdef object begin(self, PendingCall call, double now, bint restart=*)
    @cython.locals(count=Py_ssize_t)
    cpdef Waiter launch(
        self, PendingCall call, AsyncSessionConnection connection, Wakeups wakeups
    )
    cpdef object take(self, list events)
    @cython.locals(ended=PendingCall)
    cpdef object _handle_final(self, Final event)


@cython.final
@cython.freelist(64)
cdef class CallStart:
    cdef public PendingCall call
    cdef public PendingCalls calls


@cython.locals(made=CallStart)
cpdef CallStart make_start(PendingCalls calls, PendingCall call)
@cython.locals(name=bytes, options=CallOptions)
cpdef CallOptions pack_options(service, body, double timeout, int flags, bytes to, metadata)
@cython.locals(flags=int, call=PendingCall)
cpdef PendingCall make_call(service, body, double timeout, bint fail_fast, bint once, bytes to, metadata)
cpdef object result(PendingCall call)
cpdef object final(PendingCall call)
@cython.locals(reply=Reply)
cpdef Reply _reply(Final outcome)
