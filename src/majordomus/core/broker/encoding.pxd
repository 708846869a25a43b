cimport cython

cimport majordomus.protocol.octets as octets
cimport majordomus.protocol.spec as spec
cimport majordomus.core.broker.accel.arithmetic as arithmetic
from majordomus.core.broker.state.peers cimport Peer
from majordomus.core.broker.state.requests cimport Request
from majordomus.core.broker.state.workers cimport Worker


cpdef bytes handle_of(Worker worker, Request request, unsigned long long number)
cdef int PASSED_TO_WORKER
cdef int PASSED_TO_CLIENT
cdef int WITH_METADATA
cdef double ROUNDING


@cython.locals(
    flags=int,
    left="long long",
    peer=Peer,
    user=str,
    header=bytes,
    field=bytes,
    name=bytes,
    prefix=bytes,
    body=list,
)
cpdef list request_to(Worker worker, Request request, double now, list joined=*)
cpdef list heartbeat(object dialect)
cpdef list cancel(Request request)
cpdef list part(Request request, list frames, int flags, bytes metadata_field)
@cython.locals(header=bytes)
cpdef list final(
    Request request,
    int status,
    list frames,
    bytes worker_id=*,
    int flags=*,
    bytes metadata_field=*,
    bint own=*,
)
