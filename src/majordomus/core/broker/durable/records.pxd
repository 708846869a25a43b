cimport cython


cdef class StoredRecord:
    pass


@cython.final
cdef class StoredOutcome(StoredRecord):
    cdef public int status
    cdef public list frames
    cdef public bytes metadata
    cdef public double ended
    cdef public double until
    cpdef StoredOutcome fill(
        self, int status, list frames, bytes metadata, double ended, double until
    )


@cython.final
cdef class StoredRequest(StoredRecord):
    cdef public long long number
    cdef public str owner
    cdef public bytes service
    cdef public bytes called
    cdef public list body
    cdef public bytes metadata
    cdef public double accepted
    cdef public double expires
    cdef public double keep
    cdef public bytes key
    cdef public bytes digest
    cdef public int attempts
    cdef public int most
    cdef public double due
    cdef public StoredOutcome outcome
    cpdef StoredRequest fill(
        self,
        long long number,
        str owner,
        bytes service,
        bytes called,
        list body,
        bytes metadata,
        double accepted,
        double expires,
        double keep,
    )


@cython.final
cdef class Append(StoredRecord):
    cdef public StoredRequest row


@cython.final
cdef class Complete(StoredRecord):
    cdef public long long number
    cdef public int attempts
    cdef public StoredOutcome outcome


@cython.final
cdef class Remove(StoredRecord):
    cdef public long long number
