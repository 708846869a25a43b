# cython: language_level=3
from cpython.object cimport PyObject
from majordomus.net.zmtp.boxes cimport Boxes
from majordomus.net.zmtp.mechanisms cimport Mechanism

cdef enum:
    # "flags = OCTET" (RFC 37): a frame's first byte
    MORE = 0x01
    LONG = 0x02
    COMMAND = 0x04
    RESERVED = 0xF8

cdef enum:
    # states of a connection
    CONNECTING
    AWAIT_SIGNATURE  # our signature is sent
    AWAIT_GREETING  # the rest of the peer's greeting
    AWAIT_COMMAND  # the next command of the peer's handshake
    AWAIT_TYPE  # ZMTP/2.0: the peer's socket type
    AWAIT_IDENTITY  # ZMTP/2.0: the peer's identity
    OPEN
    ENDED

cdef enum:
    SMALL = 4096  # a larger frame is written from, and read into, its own memory


cdef struct StreamPart:
    PyObject* owner  # the object whose bytes these are; NULL for bytes of the buffer itself
    char* data
    size_t size


cdef struct OutBuffer:
    # What is to be written to one connection. A connection with nothing to write has none, so few
    # buffers serve thousands of connections and stay in the processor's cache.
    char* bytes  # copied frames and frame headers
    size_t start, stop, capacity  # of `bytes`
    StreamPart* pieces  # what to write, in order
    int first_piece, last_piece, piece_capacity
    size_t* ends  # end of each message, as a value of `queued`
    int first_end, last_end, end_capacity
    size_t queued, sent  # bytes since the buffer was taken


cdef class ByteStream:
    cdef readonly int fd
    cdef int state
    cdef bint write_watched  # the kernel reports when it takes more bytes
    cdef bint write_failed  # nothing is written any more; input may still be read
    cdef bint dirty  # has unwritten messages of the current batch
    cdef bint refusing  # has refused a message of the current batch
    cdef bint queued  # is in the queue for a turn
    cdef bint unparsed  # `input` holds whole messages for which a batch had no place
    cdef bint readable  # the kernel has more input
    cdef readonly bytes peer  # routing id
    cdef Mechanism mechanism  # of the handshake; None before the greeting, and once it is done
    cdef Boxes boxes  # None without encryption
    cdef int serial  # the number by which its authentication is pending; 0 when none is
    cdef int verdict  # the status of that authentication; 0 while it is pending
    cdef str proof  # what its authentication has proved
    cdef bint held  # the handshake waits for us, and nothing has changed in this turn
    cdef str host  # address of the peer; "" if it has none
    cdef OutBuffer* out  # NULL when nothing is to be written
    # Input that is not parsed.
    cdef unsigned char* input
    cdef size_t input_at, input_size, input_capacity
    # The message that is being read.
    cdef object first  # its first frame, while it has no second one
    cdef list frames  # all its frames, from the second one on
    cdef size_t message_bytes, dropped_bytes, frame_count
    cdef bint truncating  # it exceeds a bound: it was delivered, and its further frames are dropped
    cdef double truncated_at
    cdef size_t skip_bytes  # of the frame that is being dropped
    cdef bint skip_more  # that frame has MORE set
    # The large frame that is being read into its own memory.
    cdef PyObject* large
    cdef size_t large_at, large_capacity, large_size
    cdef bint large_more  # it has MORE set
    cdef size_t unfinished  # bytes that the engine counts for this connection
    cdef size_t counted_unsent  # the same for its output, as of the last flush
    cdef double progress  # when the kernel last took output, in monotonic seconds
    cdef double began  # monotonic seconds

    cdef void release(self) noexcept
    cdef size_t unsent(self) noexcept
    cdef int messages(self) noexcept
    cdef int put_message(self, object frames) except -1
    cdef int put_boxes(self, list parts) except -1
    cdef int put_bundled(self, object frame, int flags) except -1
    cdef void close_bundle(self) noexcept
    cdef bint can_seal(self) noexcept
    cdef int put_command(self, bytes body) except -1
    cdef int put_raw(self, bytes data) except -1
    cdef int write(self) noexcept
