from majordomus.core.requests cimport Request
from majordomus.core.workers cimport Worker


cpdef bytes handle_of(Worker worker, Request request, number)
cpdef list request_to(Worker worker, Request request, double now, list joined=*)
cpdef list cancel(Request request)
cpdef list part(Request request, list frames, int flags, bytes metadata_field)
cpdef list final(
    Request request, int status, list frames, bytes worker_id=*, int flags=*, bytes metadata_field=*
)
