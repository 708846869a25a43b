cdef class AsyncSessionConnection:
    cdef object __weakref__
    cdef public object session
    cdef public object loop
    cdef public object _changed
    cdef public object _take
    cdef public object _broken
    cdef public object _connection
    cdef public bint planned
    cdef public bint _working
    cdef public bint _closed
    cdef public object _timer
    cdef public double _timer_at
    cpdef object touch(self)
    cpdef object send(self)
    cpdef object send_now(self)
    cpdef object _work(self, first=*)
    cpdef object _arm(self)
