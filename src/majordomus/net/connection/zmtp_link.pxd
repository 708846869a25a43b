cdef class ZmtpLink:
    cdef public object url
    cdef public bint up
    cdef public object waits_for
    cdef public bint _expired
    cdef public double due
    cdef public double _latest
    cdef public object _shaken
    cdef public object _dealer
    cdef public object bound
    cdef public object receive
    cdef public object send
    cdef public tuple fds
    cdef public object _generation
    cdef public bint _closed
