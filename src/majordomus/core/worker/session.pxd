cimport cython

from majordomus.core.session.connection cimport Connection
from majordomus.core.worker.session_base cimport WorkerSessionBase, make_dispatch
cimport majordomus.protocol.octets as octets
from majordomus.protocol.mdp03 cimport Fields


cdef class WorkerSession(WorkerSessionBase):
    cpdef double received_at(self)
    cpdef object final(self, dispatch_id, status, list frames, double now)
    @cython.locals(
        connection=Connection, header=Fields, command=int, flags=int, service=bytes, called=bytes, known=bint, deadline=double, dispatch_id=object, id=object
    )
    cpdef object receive(self, list frames, double now)
