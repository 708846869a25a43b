cdef class Request:
    cdef dict __dict__
    cdef object __weakref__
    cdef public object service
    cdef public list frames
    cdef public object client
    cdef public double deadline
    cdef public bint once
    cdef public object parts
    cdef public object _packed
    cdef public object _broker_packed
    cdef public object _number
    cdef public object _clock
    cdef public object _reply_box
    cdef public object _cancel_event
    cdef public bint _cancelled
    cdef public object _cancel_callback
    cdef public object _metadata
    cdef public object _broker_metadata
    # Of C alone: a class whose objects have a dictionary looks for a replacement at every call.
    cdef object _fill(
        self,
        service,
        list frames,
        client,
        double deadline,
        packed,
        broker_packed,
        bint once,
        parts,
        number,
    )
