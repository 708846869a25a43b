from majordomus.core.client.session cimport ClientSession
from majordomus.net.client.calls cimport PendingCall, make_start, result
from majordomus.net.client.driver cimport Driver


cdef class CallRunner:
    cdef object __weakref__
    cdef public ClientSession session
    # An object, because its methods are handed on: of a declared type they would be C's.
    cdef public object calls
    cdef public Driver driver
    cpdef object run(self, PendingCall call)
    cpdef object wait(self, PendingCall call, done, command=*)


cpdef object run_call(CallRunner runner, PendingCall call)
