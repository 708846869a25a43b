cdef class Action:
    pass


cdef class ReplyAction(Action):
    cdef public object frames
    cdef public object status
    cdef public object _packed
