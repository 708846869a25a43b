cimport cython

from majordomus.core.broker.machine cimport BrokerMachine


@cython.final
cdef class BrokerLoop:
    cdef public object failure
    cdef public object _store
    cdef public object waker
    cdef public bint asked
    cdef public bint started
    cdef public bint _at_once
    cdef public double _linger
    cdef public BrokerMachine _machine
    cdef public object _listener
    cdef public object _clock
    cdef public object _watch
    cdef public object audit
    cdef public object _log
    cdef public object program
    cdef public list _rest
    cdef public bint _full
    cdef public int _ready
    cdef public Py_ssize_t _handled
    @cython.locals(ready=int, now=double, batch=list)
    cdef double _turn(self, double wait) except? -1
    @cython.locals(
        size=Py_ssize_t,
        count=Py_ssize_t,
        at=Py_ssize_t,
        took=double,
        longest=double,
        slowed=bint,
    )
    cdef object _handle(self, list batch, double now)
    @cython.locals(handled=Py_ssize_t, fits=Py_ssize_t, slowed=bint, quick=bint)
    cdef object _adapt(self, double took)
    cdef object _receive(self, list batch, double now)
    @cython.locals(sends=list, facts=list, gone=bint, peer_gone=bint)
    cdef double _apply(self, double now) except? -1
    @cython.locals(deadline=double)
    cdef double _wait(self, double now) except? -1
