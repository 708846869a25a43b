cimport cython


@cython.final
cdef class Connection:
    cdef public object state
    cdef public int endpoint
    cdef public list order
    cdef public object home
    cdef public int _place
    cdef public double interval
    cdef public double received_at
    cdef public double sent_at
    cdef public double due
    cdef public object probe
    cdef public bint probe_wanted
    cdef public int liveness
    cdef public bint present
    cdef public Py_ssize_t max_message
    cdef public Py_ssize_t max_part
    cdef public Py_ssize_t max_received
    cdef public Py_ssize_t _max_received
    cdef public int _endpoints
    cdef public double _connect_timeout
    cdef public double _within
    cdef public long long _unanswered
    cdef public long long _unreached
    cdef public double _first
    cdef public double _most
    cdef public int _free
    cdef public bint _always
    cdef public object _rng
    cdef public double _tried_since
    cdef public double _opened_at
    cdef public int _failures
    cdef public double _heartbeat_at
    cdef public double _silent_from
    cdef public double _probed_at
    cdef public double _probe_until
