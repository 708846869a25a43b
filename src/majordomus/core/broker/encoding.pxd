cimport cython

cimport majordomus.protocol.octets as octets
cimport majordomus.protocol.spec as spec
cimport majordomus.core.broker.accel.arithmetic as arithmetic
from majordomus.core.broker.state.peers cimport Peer
from majordomus.core.broker.state.requests cimport AcceptedRequest
from majordomus.core.broker.state.workers cimport RegisteredWorker


cpdef bytes handle_of(RegisteredWorker worker, AcceptedRequest request, unsigned long long number)
cdef object MDP03
cdef int PASSED_TO_WORKER
cdef int PASSED_TO_CLIENT
cdef int WITH_METADATA
cdef double ROUNDING


@cython.locals(
    flags=int,
    peer=Peer,
    user=str,
    header=bytes,
    field=bytes,
    name=bytes,
    prefix=bytes,
    message=list,
)
cpdef list request_to(RegisteredWorker worker, AcceptedRequest request, double now, list joined=*)
@cython.locals(left="long long")
cdef long long _time_left(AcceptedRequest request, double now) except -1
cpdef list heartbeat(object dialect)
cpdef list cancel(AcceptedRequest request)
cpdef list part(AcceptedRequest request, list frames, int flags, bytes metadata_field)
cpdef list final(
    AcceptedRequest request,
    int status,
    list frames,
    bytes worker_id=*,
    int flags=*,
    bytes metadata_field=*,
)
@cython.locals(header=bytes)
cpdef list final_from(
    AcceptedRequest request,
    int status,
    list message,
    bytes worker_id,
    int flags,
    bytes metadata_field,
)
