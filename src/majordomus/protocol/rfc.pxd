cimport cython

cimport majordomus.protocol.spec as spec
from majordomus.protocol.fields cimport (
    frame_at,
    no_more,
    read_address,
    read_service,
    written_address,
    written_body,
    written_service,
)


cdef class RfcCodec:
    cdef public object layout
    cdef public int _start
    cdef public bytes _client
    cdef public bytes _worker
    cdef public dict _client_commands
    cdef public dict _worker_commands
    cdef public dict _from_client
    cdef public dict _to_client
    cdef public dict _from_worker
    cdef public dict _to_worker
    @cython.locals(at=Py_ssize_t)
    cpdef object read_broker(self, list frames)
    cpdef object _read_from_worker(self, list frames, Py_ssize_t at)
    cpdef list b2c_final(self, service, list body)
    cpdef list b2w_request(self, address, list body)
    cpdef list _client_head(self, number)
    cpdef list _worker_head(self, number)
    cpdef list _reply(self, number, service, list body)
    cpdef list _addressed(self, number, address, list body)


cdef object _number(list frames, Py_ssize_t at, dict numbers)
cdef object _read_request(list frames, Py_ssize_t at)
cdef object _read_reply(number, list frames, Py_ssize_t at)
