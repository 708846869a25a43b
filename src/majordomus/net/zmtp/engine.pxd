# cython: language_level=3
from majordomus.net.zmtp.mechanisms cimport Mechanism
from majordomus.net.zmtp.stream cimport ByteStream

cdef enum:
    FRAME_COST = 64  # bytes of memory that a frame takes besides its own
    FLUSH_AT = 48 * 1024  # unsent bytes of a connection that are written before the end of a batch
    MAX_READ = 8 * 1024 * 1024  # bytes that one `receive` reads at most
    READ_BUFFER = 128 * 1024
    MAX_ID = 255


cdef class Engine:
    cdef int epoll
    cdef unsigned char* read_buffer  # shared by all connections
    cdef size_t max_frames, max_bytes, max_dropped
    cdef double max_dropping
    cdef double now  # of the current `receive`
    cdef size_t unfinished  # bytes of all messages that are not complete
    cdef size_t unsent_bytes  # of all connections, as of their last flush
    cdef size_t bytes_read  # since the current `receive` began
    cdef bint abandoned
    cdef size_t frame_cost  # of a frame toward max_bytes, where max_frames does not bound them
    cdef readonly size_t truncated  # messages that were delivered without their rest
    cdef bytes mechanism_name  # as the greeting holds it
    cdef bytes greeting  # ours, after the major version
    cdef bytes zmtp2_ready  # of ZMTP/2.0: our socket type and identity
    cdef int budget  # scalar multiplications that the current turn of a server may still spend
    cdef list reported  # for `events`
    cdef readonly bytes other_mechanism  # of the last peer that was refused for it

    # for subclasses
    cdef int deliver(self, ByteStream stream, list frames, list batch) except -1
    cdef Mechanism make_mechanism(self)
    cdef int authenticate(self, ByteStream stream) except -1
    cdef bint may_spend(self, ByteStream stream, int cost) except -1
    cdef int postpone(self, ByteStream stream) except -1
    cdef str accept_peer(self, ByteStream stream, bytes peer, bytes kind)
    cdef int connection_ended(self, ByteStream stream, str why) except -1
    # the kernel
    cdef int watch(self, int fd, int operation, bint to_read, bint to_write) except -1
    cdef int flush(self, ByteStream stream) except -1
    cdef int end(self, ByteStream stream, str why) except -1
    cdef int run_turn(self, ByteStream stream, list batch, Py_ssize_t most) except -1
    cdef int read(self, ByteStream stream, list batch, Py_ssize_t most) except -1
    cdef void count_unsent(self, ByteStream stream) noexcept
    cdef void count_unfinished(self, ByteStream stream) noexcept
    cdef bint read_large(self, ByteStream stream, list batch) except -1
    cdef int grow_large(self, ByteStream stream) except -1
    cdef int end_large(self, ByteStream stream, list batch) except -1
    cdef int keep_input(self, ByteStream stream, unsigned char* data, size_t size) except -1
    # bytes to messages
    cdef int parse_input(self, ByteStream stream, unsigned char* data, size_t size, list batch, Py_ssize_t most) except -1
    cdef size_t parse_frames(self, ByteStream stream, unsigned char* data, size_t size, list batch, Py_ssize_t most) except? 999999999
    cdef size_t parse_boxes(self, ByteStream stream, unsigned char* data, size_t size, list batch, Py_ssize_t most) except? 999999999
    cdef int open_box(self, ByteStream stream, unsigned char* body, size_t length, list batch, Py_ssize_t most) except -1
    cdef int open_bundle(self, ByteStream stream, bytes frames, list batch, Py_ssize_t most) except -1
    cdef int parse_bundle(self, ByteStream stream, list batch, Py_ssize_t most) except -1
    cdef bint exceeds_bounds(self, ByteStream stream, size_t length, list batch) except -1
    cdef size_t skip_input(self, ByteStream stream, size_t size) except? 999999999
    cdef int begin_large(self, ByteStream stream, unsigned char* data, size_t here, size_t length, bint more) except -1
    cdef int add_frame(self, ByteStream stream, object frame, bint more, list batch) except -1
    cdef int complete_message(self, ByteStream stream, list batch) except -1
    cdef void reset_message(self, ByteStream stream) noexcept
    cdef int deliver_truncated(self, ByteStream stream, size_t length, list batch) except -1
    cdef int handle_command(self, ByteStream stream, unsigned char* data, size_t size) except -1
    # the handshake
    cdef int begin_handshake(self, ByteStream stream) except -1
    cdef size_t handshake_step(self, ByteStream stream, unsigned char* data, size_t size) except? 999999999
    cdef size_t read_signature(self, ByteStream stream, unsigned char* data, size_t size) except? 999999999
    cdef size_t read_greeting(self, ByteStream stream, unsigned char* data, size_t size) except? 999999999
    cdef int set_mechanism(self, bytes name, bint as_server) except -1
    cdef size_t read_command(self, ByteStream stream, unsigned char* data, size_t size) except? 999999999
    cdef size_t read_identity(self, ByteStream stream, unsigned char* data, size_t size) except? 999999999
    cdef int advance(self, ByteStream stream) except -1
    cdef int open_connection(self, ByteStream stream, bytes peer, bytes kind) except -1
