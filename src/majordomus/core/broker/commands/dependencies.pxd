from majordomus.core.broker.admission cimport Admission
from majordomus.core.broker.completion cimport Completion
from majordomus.core.broker.dispatch cimport Dispatcher
from majordomus.core.broker.outgoing cimport Outgoing
from majordomus.core.broker.queueing cimport Queueing
from majordomus.core.broker.state.registry cimport Registry


cdef class Commands:
    cdef public Registry registry
    cdef public object settings
    cdef public Outgoing outgoing
    cdef public Dispatcher dispatcher
    cdef public Queueing queueing
    cdef public Completion completion
    cdef public object presence
    cdef public Admission admission
    cdef public object authorization
    cdef public object registration
    cdef public object events
    cdef public object hooks
