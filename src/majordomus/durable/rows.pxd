cimport cython

cimport majordomus.durable.sums as sums
from majordomus.core.broker.durable.records cimport Complete, StoredOutcome, StoredRequest


@cython.locals(body=bytes)
cpdef tuple values_of(StoredRequest row)


@cython.locals(part=bytes)
cdef object crc_of(StoredRequest row, bytes body)


@cython.locals(outcome=StoredOutcome, reply=bytes)
cpdef tuple ended(Complete end)


cdef object crc_of_reply(long long number, StoredOutcome outcome, bytes reply)
