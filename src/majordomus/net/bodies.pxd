from majordomus.core.broker.hooks.actions cimport ReplyAction


cdef class Reply(ReplyAction):
    cdef public object worker
