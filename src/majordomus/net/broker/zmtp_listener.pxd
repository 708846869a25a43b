cimport cython


@cython.final
cdef class ZmtpListener:
    cdef public object _machine
    cdef public object _waker
    cdef public object _limits
    cdef public object _authentication
    cdef public double _now
    cdef public object _router
    cdef public Py_ssize_t batch
    cdef public list _listening
    cdef public dict _hosts
    cdef public double _next_handshake
    cdef public double _accept_at
    cdef public double due
    cdef public list _ended
    cdef public bint _closed
    cdef public object _generation
    cdef public object fd
    cdef public object wait
    @cython.locals(batch=list)
    cpdef tuple receive(self, int ready, double now)
    cpdef object report_connections(self, int ready, double now)
    cpdef object send(self, list batch, double now)
