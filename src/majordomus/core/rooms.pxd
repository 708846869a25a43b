from majordomus.core.admission cimport Admission
from majordomus.core.dispatch cimport Dispatcher
from majordomus.core.outgoing cimport Outgoing
from majordomus.core.registry cimport Registry


cdef class Commands:
    cdef public Registry registry
    cdef public object settings
    cdef public Outgoing outgoing
    cdef public Dispatcher dispatcher
    cdef public object presence
    cdef public Admission admission
    cdef public object enrolment
    cdef public object events
