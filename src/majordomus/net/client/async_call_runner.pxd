cimport cython

from majordomus.core.client.session cimport ClientSession
from majordomus.net.client.calls cimport PendingCall, PendingCalls, result
from majordomus.net.client.waiter cimport Waiter, Wakeups
from majordomus.net.connection.async_link cimport AsyncSessionConnection


cdef class AsyncCallRunner:
    cdef object __weakref__
    cdef public ClientSession session
    # An object, because its method `take` is handed on: of a declared type that would be C's.
    cdef public object calls
    cdef public object _access
    cdef public AsyncSessionConnection _connection
    cdef public AsyncSessionConnection _usable
    cdef public object _loop
    cdef public Wakeups _wakeups
    cdef public bint _closed
    cdef public object _generation
    @cython.locals(connection=AsyncSessionConnection)
    cpdef AsyncSessionConnection connection(self)
    @cython.locals(calls=PendingCalls)
    cpdef Waiter start(self, PendingCall call)


cpdef Waiter start_call(AsyncCallRunner runner, PendingCall call)
