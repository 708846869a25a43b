cimport cython

from majordomus.core.client.calls cimport Call, make_call, make_final
from majordomus.core.client.session_base cimport ClientSessionBase
cimport majordomus.protocol.octets as octets
from majordomus.protocol.mdp03 cimport Fields


cdef class ClientSession(ClientSessionBase):
    @cython.locals(
        number=object, tail=bytes, call=Call, deadline=double, head=bytes, most=Py_ssize_t
    )
    cpdef object ask(
        self,
        bytes service,
        list body,
        double now,
        double ttl,
        int flags,
        bytes to,
        bytes metadata,
        bint restart,
    )
    @cython.locals(header=Fields, call=Call, command=int, flags=int, code=int, id=object)
    cpdef object receive(self, list frames, double now)
    cpdef object tick(self, double now)
    @cython.locals(calls=double, streams=double, due=double)
    cpdef double next_deadline(self) except? -1
    @cython.locals(events=list, sends=list, tags=list, renew=bint)
    cpdef tuple take_effects(self)
