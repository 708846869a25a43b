# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""ZMTP 3.1 (RFC 37) over stream sockets, in the caller's thread. No rule of Majordomo is in it.

An engine reads bytes, parses them into messages, and runs the handshake of each connection.
`router` and `dealer` subclass it; `stream` holds the buffers of a connection; `mechanisms` has the
handshakes, and `boxes` the encrypted messages. The engine waits by epoll, so it exists on Linux
only.

In libzmq an I/O thread owns the connections, and every message crosses two queues and two wake-ups.
Here a message is bytes in a buffer: docs/adr/0011-own-zmtp.md.
"""

from majordomus.net.bodies import Cut
from majordomus.net.zmtp.mechanisms import (
    MALFORMED,
    NULL_NAME,
    REFUSED,
)

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EAGAIN, ECONNRESET, EINTR, EPIPE, errno
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy
from majordomus.net.zmtp.boxes cimport BOX_BUNDLE, BOX_COMMAND, BOX_HEAD, BOX_MORE, Boxes
from majordomus.net.zmtp.bytes_access cimport bytes_of, grow, size_of
from majordomus.net.zmtp.mechanisms cimport ASKING, DONE, FAILED, MAX_COMMAND, WORKING, Mechanism
from majordomus.net.zmtp.posix cimport (
    EPOLL_CLOEXEC,
    EPOLL_CTL_DEL,
    EPOLL_CTL_MOD,
    EPOLLIN,
    EPOLLOUT,
    MSG_DONTWAIT,
    SHUT_RDWR,
    close,
    epoll_create1,
    epoll_ctl,
    epoll_event,
    recv,
    shutdown,
)
from majordomus.net.zmtp.stream cimport (
    COMMAND,
    ENDED,
    AWAIT_GREETING,
    AWAIT_COMMAND,
    LONG,
    MORE,
    AWAIT_IDENTITY,
    OPEN,
    RESERVED,
    AWAIT_SIGNATURE,
    SMALL,
    AWAIT_TYPE,
    ByteStream,
)

cdef enum:
    SIGNATURE = 11  # with the major version, which decides how the greeting continues
    GREETING = 64

cdef enum:
    TURN_BYTES = 256 * 1024  # of one large frame, before other connections get their turn
    FIRST_LARGE = 64 * 1024  # memory for a large frame at first; it grows as bytes arrive
    MAX_IDLE_INPUT = 16 * 1024  # a larger input buffer is freed when it is empty
    WHOLE_BOX = 16 * 1024 + BOX_HEAD  # the largest bundle: a box that may be one is read as a whole

cdef uint64_t MOST_LENGTH = <uint64_t>1 << 62  # of a frame; a `Cut` may have it

cdef bytes OUR_SIGNATURE = b"\xff\0\0\0\0\0\0\0\1\x7f\x03"
cdef enum:
    ACCEPTED = 200  # a status of RFC 27

# Events of a connection; see `Engine.events`.
CONNECTION_OPENED, HANDSHAKE_DONE, CONNECTION_ENDED, HANDSHAKE_FAILED = 1, 2, 3, 4

# Reasons for the end of a connection.
NOT_ZMTP = "not-zmtp"
ANOTHER_MECHANISM = "another-mechanism"
BROKEN_OFF = "broken-off"
ID_IN_USE = "routing-id-in-use"
ENDLESS = "endless-message"
TOO_LARGE = "frame-too-large"
UNFINISHED = "unfinished-messages"
UNREACHED = "unreached"
STALLED = "reads-nothing"
NOT_YET = "not yet"  # `accept_peer` is to be asked again at the next turn


cdef class Engine:
    """Reads and writes the streams of connections.

    A subclass receives the messages (`deliver`), accepts or refuses peers (`accept_peer`), and
    handles ended connections (`connection_ended`). An engine belongs to one thread at a time.
    """

    def __cinit__(self, *_args, **_named):
        self.reported = []
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise OSError(errno, "epoll_create1")
        self.read_buffer = <unsigned char*>malloc(READ_BUFFER)
        if self.read_buffer == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.read_buffer)
        if self.epoll >= 0:
            close(self.epoll)

    @property
    def fd(self):
        """A descriptor that is readable when `receive` has work: input, output, or a connection to
        accept."""
        return self.epoll

    def abandon(self):
        """Close the descriptors and nothing else, in a child after a fork: the connections are the
        parent's."""
        self.abandoned = True
        self.close()

    def events(self):
        """Return the events of connections since the last call, in order.

        Each is (event, descriptor, routing id or None, detail). The detail is the address of the
        peer for CONNECTION_OPENED, and the reason for CONNECTION_ENDED and HANDSHAKE_FAILED.
        """
        if not self.reported:
            return []
        reported, self.reported = self.reported, []
        return reported

    # ── for subclasses ────────────────────────────────────────────────────────────────────────────

    cdef int deliver(self, ByteStream stream, list frames, list batch) except -1:
        """Append a complete message to the batch."""
        raise NotImplementedError

    cdef Mechanism make_mechanism(self):
        """Make the mechanism of a new connection."""
        raise NotImplementedError

    cdef int authenticate(self, ByteStream stream) except -1:
        """Check the credentials of a peer. Returns a status of RFC 27; 0 when it comes later, as
        `verdict`."""
        return ACCEPTED

    cdef bint may_spend(self, ByteStream stream, int cost) except -1:
        """Whether this turn may spend so many multiplications on a handshake."""
        return True

    cdef int postpone(self, ByteStream stream) except -1:
        """Go on with a handshake in a later turn: this one has no multiplications left."""
        raise NotImplementedError

    cdef str accept_peer(self, ByteStream stream, bytes peer, bytes kind):
        """Accept a peer whose handshake is done. Returns None, or the reason of its refusal, or
        NOT_YET."""
        raise NotImplementedError

    cdef int connection_ended(self, ByteStream stream, str why) except -1:
        """Note the end of a connection; its descriptor is still open."""
        raise NotImplementedError

    # ── the kernel ────────────────────────────────────────────────────────────────────────────────

    cdef int watch(self, int fd, int operation, bint to_read, bint to_write) except -1:
        cdef epoll_event event
        event.events = (EPOLLIN if to_read else 0) | (EPOLLOUT if to_write else 0)
        event.data.fd = fd
        if epoll_ctl(self.epoll, operation, fd, &event) != 0:
            raise OSError(errno, "epoll_ctl")
        return 0

    cdef int flush(self, ByteStream stream) except -1:
        """Write what is unsent; what the kernel does not take now is written later."""
        cdef int number
        stream.dirty = False
        if stream.state == ENDED or stream.write_failed:
            return 0
        number = stream.write()
        if stream.out != NULL or stream.counted_unsent:
            self.count_unsent(stream)
        if number == EAGAIN:
            if not stream.write_watched:
                stream.write_watched = True
                self.watch(stream.fd, EPOLL_CTL_MOD, True, True)
            return 0
        if number != 0:
            stream.write_failed = True  # input may be left to read; a failed read ends it then
            if number != EPIPE and number != ECONNRESET:
                shutdown(stream.fd, SHUT_RDWR)
        if stream.write_watched:
            stream.write_watched = False
            self.watch(stream.fd, EPOLL_CTL_MOD, True, False)
        return 0

    cdef int end(self, ByteStream stream, str why) except -1:
        """Close a connection. May be repeated."""
        if stream.state == ENDED:
            return 0
        self.connection_ended(stream, why)
        stream.state = ENDED
        self.unfinished -= stream.unfinished
        self.unsent_bytes -= stream.counted_unsent
        stream.unfinished = stream.counted_unsent = 0
        if not self.abandoned:  # a forked child may have a copy: closing ours is not enough
            epoll_ctl(self.epoll, EPOLL_CTL_DEL, stream.fd, NULL)
        close(stream.fd)
        stream.release()
        return 0

    cdef int run_turn(self, ByteStream stream, list batch, Py_ssize_t most) except -1:
        """Read messages of one connection until the batch has `most`.

        Afterwards `unparsed` or `readable` is set when another turn would find more at once.
        """
        if stream.unparsed:
            stream.unparsed = False
            self.parse_input(stream, stream.input + stream.input_at, stream.input_size, batch, most)
        else:
            self.read(stream, batch, most)
        if stream.state != ENDED and stream.out != NULL and not stream.write_watched:
            self.flush(stream)
        self.count_unfinished(stream)
        return 0

    cdef int read(self, ByteStream stream, list batch, Py_ssize_t most) except -1:
        """Read what the kernel has of this connection, by one system call.

        A read that does not fill the buffer has emptied the kernel's.
        """
        cdef ssize_t got
        cdef size_t had
        cdef int number
        stream.readable = False
        if stream.large != NULL and not self.read_large(stream, batch):
            return 0
        had = stream.input_size
        if had:
            memcpy(self.read_buffer, stream.input + stream.input_at, had)
            stream.input_at = stream.input_size = 0
        while True:
            got = recv(stream.fd, self.read_buffer + had, READ_BUFFER - had, MSG_DONTWAIT)
            number = errno
            if got >= 0 or number != EINTR:
                break
        if got <= 0:
            self.keep_input(stream, self.read_buffer, had)
            if got == 0 or number != EAGAIN:
                self.end(stream, BROKEN_OFF)
            return 0
        self.bytes_read += <size_t>got
        stream.readable = <size_t>got == READ_BUFFER - had
        self.parse_input(stream, self.read_buffer, had + <size_t>got, batch, most)
        if stream.large != NULL and stream.readable:
            self.read_large(stream, batch)
        return 0

    cdef void count_unsent(self, ByteStream stream) noexcept:
        """Update the bytes of output that wait for this connection's kernel buffer."""
        cdef size_t now_held = stream.unsent()
        if now_held < stream.counted_unsent or stream.counted_unsent == 0:
            stream.progress = self.now
        self.unsent_bytes += now_held - stream.counted_unsent
        stream.counted_unsent = now_held

    cdef void count_unfinished(self, ByteStream stream) noexcept:
        """Update the memory that the unfinished message of this connection takes."""
        cdef size_t now_held = stream.input_size + stream.message_bytes
        now_held += stream.frame_count * FRAME_COST
        if stream.state == ENDED:
            return
        if stream.large != NULL:
            now_held += stream.large_at - stream.large_size
        self.unfinished += now_held - stream.unfinished
        stream.unfinished = now_held

    cdef bint read_large(self, ByteStream stream, list batch) except -1:
        """Read the rest of a large frame into its own memory.

        Returns True when it is complete and the turn may continue.
        """
        cdef ssize_t got
        cdef size_t turn = 0
        while stream.large_at < stream.large_size:
            if turn >= TURN_BYTES:
                stream.readable = True
                return False
            if stream.large_at == stream.large_capacity:
                self.grow_large(stream)
            got = recv(
                stream.fd,
                bytes_of(<object>stream.large) + stream.large_at,
                stream.large_capacity - stream.large_at,
                MSG_DONTWAIT,
            )
            if got <= 0:
                if got < 0 and errno == EINTR:
                    continue
                if got == 0 or errno != EAGAIN:
                    self.end(stream, BROKEN_OFF)
                stream.readable = False
                return False
            stream.large_at += <size_t>got
            turn += <size_t>got
            self.bytes_read += <size_t>got
        self.end_large(stream, batch)
        return turn < TURN_BYTES

    cdef int grow_large(self, ByteStream stream) except -1:
        """Double the memory of a large frame: a length that is only announced takes none."""
        cdef size_t room = 2 * stream.large_capacity
        if room > stream.large_size:
            room = stream.large_size
        grow(&stream.large, <Py_ssize_t>room)
        stream.large_capacity = room
        return 0

    cdef int end_large(self, ByteStream stream, list batch) except -1:
        cdef object frame = <object>stream.large
        Py_DECREF(frame)  # the reference that `large` held
        stream.large = NULL
        if stream.boxes is not None:
            return self.open_box(
                stream, <unsigned char*>bytes_of(frame), stream.large_size, batch, 0
            )
        return self.add_frame(stream, frame, stream.large_more, batch)

    cdef int keep_input(self, ByteStream stream, unsigned char* data, size_t size) except -1:
        """Keep unparsed bytes for the next turn. They may lie in `stream.input` already."""
        cdef unsigned char* larger
        if stream.state == ENDED:
            return 0
        if size == 0:
            if stream.input_capacity > MAX_IDLE_INPUT:
                free(stream.input)
                stream.input, stream.input_capacity = NULL, 0
            stream.input_at = stream.input_size = 0
            return 0
        if stream.input != NULL and stream.input <= data < stream.input + stream.input_capacity:
            stream.input_at, stream.input_size = <size_t>(data - stream.input), size
            return 0
        if size > stream.input_capacity:
            larger = <unsigned char*>realloc(stream.input, size)
            if larger == NULL:
                raise MemoryError
            stream.input, stream.input_capacity = larger, size
        memcpy(stream.input, data, size)
        stream.input_at, stream.input_size = 0, size
        return 0

    # ── bytes to messages ─────────────────────────────────────────────────────────────────────────

    cdef int parse_input(
        self, ByteStream stream, unsigned char* data, size_t size, list batch, Py_ssize_t most
    ) except -1:
        """Parse bytes: first the handshake, then messages. Keep the rest.

        Sets `unparsed` when the rest holds messages that the batch had no place for.
        """
        cdef size_t at = 0, used
        stream.held = False
        while stream.state != OPEN and stream.state != ENDED:
            used = self.handshake_step(stream, data + at, size - at)
            if used == 0:
                break
            at += used
        if stream.state == OPEN:
            if stream.boxes is None:
                at += self.parse_frames(stream, data + at, size - at, batch, most)
            else:
                at += self.parse_boxes(stream, data + at, size - at, batch, most)
        if stream.state == ENDED:
            return 0
        return self.keep_input(stream, data + at, size - at)

    cdef size_t parse_frames(
        self, ByteStream stream, unsigned char* data, size_t size, list batch, Py_ssize_t most
    ) except? 999999999:
        """Parse frames and commands. Returns the number of bytes that were parsed."""
        cdef size_t at = 0, head
        cdef uint64_t length
        cdef int flags, n
        while at < size:
            if stream.skip_bytes:
                at += self.skip_input(stream, size - at)
                if stream.state == ENDED:
                    return at
                continue
            if len(batch) >= most:
                stream.unparsed = True
                break
            flags = data[at]
            if not flags & LONG:
                if size - at < 2:
                    break
                length, head = data[at + 1], 2
            else:
                if size - at < 9:
                    break
                length, head = 0, 9
                for n in range(8):
                    length = (length << 8) | data[at + 1 + n]
            if flags & RESERVED:
                self.end(stream, MALFORMED)
                return at
            if flags & COMMAND:
                if length > MAX_COMMAND:
                    self.end(stream, MALFORMED)
                    return at
                if size - at - head < length:
                    break
                self.handle_command(stream, data + at + head, <size_t>length)
                at += head + <size_t>length
                continue
            if length > MOST_LENGTH:
                self.end(stream, TOO_LARGE)
                return at
            if size - at - head < length and length <= SMALL:
                break  # parsed as a whole only, so that `exceeds_bounds` counts it once
            if self.exceeds_bounds(stream, <size_t>length, batch):
                if stream.state == ENDED:
                    return at
                at += head
                stream.skip_bytes, stream.skip_more = <size_t>length, flags & MORE
                if length == 0:
                    self.skip_input(stream, 0)
                    if stream.state == ENDED:
                        return at
                continue
            if size - at - head < length:
                self.begin_large(
                    stream, data + at + head, size - at - head, <size_t>length, flags & MORE
                )
                return size
            at += head
            self.add_frame(
                stream,
                PyBytes_FromStringAndSize(<char*>data + at, <Py_ssize_t>length),
                flags & MORE,
                batch,
            )
            at += <size_t>length
        return at

    cdef size_t parse_boxes(
        self, ByteStream stream, unsigned char* data, size_t size, list batch, Py_ssize_t most
    ) except? 999999999:
        """Parse the frames of a CURVE connection. Returns the number of bytes that were parsed.

        RFC 26 sends a MESSAGE as a command; libzmq sends it as a message. Both are read.
        """
        cdef Boxes boxes = stream.boxes
        cdef size_t at = 0, head, whole = WHOLE_BOX if boxes.bundles else SMALL
        cdef uint64_t length
        cdef unsigned char inner
        cdef int flags, n
        if boxes.rest is not None:
            self.parse_bundle(stream, batch, most)
        while at < size and stream.state != ENDED:
            if stream.skip_bytes:
                n = <int>min(size - at, stream.skip_bytes, <size_t>READ_BUFFER)
                boxes.check(data + at, <size_t>n)
                if <size_t>n == stream.skip_bytes and not boxes.checked():
                    self.end(stream, MALFORMED)
                    return at
                at += self.skip_input(stream, <size_t>n)
                continue
            if len(batch) >= most or boxes.rest is not None:
                stream.unparsed = True
                break
            flags = data[at]
            if not flags & LONG:
                if size - at < 2:
                    break
                length, head = data[at + 1], 2
            else:
                if size - at < 9:
                    break
                length, head = 0, 9
                for n in range(8):
                    length = (length << 8) | data[at + 1 + n]
            if flags & ~(LONG | COMMAND) or length < BOX_HEAD:
                self.end(stream, MALFORMED)
                return at
            if length > MOST_LENGTH:
                self.end(stream, TOO_LARGE)
                return at
            if size - at - head < BOX_HEAD:
                break
            if not boxes.is_next(data + at + head):
                self.end(stream, MALFORMED)
                return at
            if length <= whole:
                if size - at - head < length:
                    break
                at += head
                self.open_box(stream, data + at, <size_t>length, batch, most)
                at += <size_t>length
                continue
            if self.exceeds_bounds(stream, <size_t>length - BOX_HEAD, batch):
                if stream.state == ENDED:
                    return at
                # MORE is in the box: its MAC is checked, and its text is dropped.
                inner = boxes.begin_check(data + at + head)
                at += head + BOX_HEAD
                stream.skip_bytes, stream.skip_more = <size_t>length - BOX_HEAD, inner & BOX_MORE
                if inner & ~BOX_MORE:
                    self.end(stream, MALFORMED)
                    return at
                continue
            if size - at - head < length:
                self.begin_large(stream, data + at + head, size - at - head, <size_t>length, False)
                return size
            at += head
            self.open_box(stream, data + at, <size_t>length, batch, most)
            at += <size_t>length
        return at

    cdef int open_box(
        self, ByteStream stream, unsigned char* body, size_t length, list batch, Py_ssize_t most
    ) except -1:
        """Decrypt a whole box, and handle what it holds.

        The length of a large one was counted by `exceeds_bounds` before it was read.
        """
        cdef Boxes boxes = stream.boxes
        cdef unsigned char flags = 0
        cdef bytes text = boxes.open(body, length, &flags)
        cdef bint counted = length > (WHOLE_BOX if boxes.bundles else SMALL)
        if text is None:
            return self.end(stream, MALFORMED)
        if flags & ~BOX_MORE:
            if flags == BOX_BUNDLE and boxes.bundles and not counted:
                return self.open_bundle(stream, text, batch, most)
            if counted or flags & ~(BOX_MORE | BOX_COMMAND):
                return self.end(stream, MALFORMED)
            return self.handle_command(
                stream, <unsigned char*>bytes_of(text), <size_t>size_of(text)
            )
        length -= BOX_HEAD
        if not counted and self.exceeds_bounds(stream, length, batch):
            if stream.state == ENDED:
                return 0
            stream.skip_bytes, stream.skip_more = length, flags & BOX_MORE
            self.skip_input(stream, length)
            return 0
        return self.add_frame(stream, text, flags & BOX_MORE, batch)

    cdef int open_bundle(
        self, ByteStream stream, bytes frames, list batch, Py_ssize_t most
    ) except -1:
        """Handle the frames of a bundle, after a check that all of them are whole."""
        cdef const unsigned char* data = <const unsigned char*>bytes_of(frames)
        cdef size_t at = 0, size = <size_t>size_of(frames), head
        cdef uint64_t length
        cdef int n
        while at < size:
            if data[at] & RESERVED or size - at < (9 if data[at] & LONG else 2):
                return self.end(stream, MALFORMED)
            length, head = data[at + 1], 2
            if data[at] & LONG:
                length, head = 0, 9
                for n in range(8):
                    length = (length << 8) | data[at + 1 + n]
            if length > size - at - head:
                return self.end(stream, MALFORMED)
            at += head + <size_t>length
        stream.boxes.rest, stream.boxes.rest_at = frames, 0
        return self.parse_bundle(stream, batch, most)

    cdef int parse_bundle(self, ByteStream stream, list batch, Py_ssize_t most) except -1:
        """Deliver the frames of a bundle until the batch has `most` messages."""
        cdef bytes frames = stream.boxes.rest
        cdef size_t at = stream.boxes.rest_at, size = <size_t>size_of(frames)
        at += self.parse_frames(
            stream, <unsigned char*>bytes_of(frames) + at, size - at, batch, most
        )
        if stream.state == ENDED:
            return 0
        stream.boxes.rest_at = at
        if at == size:
            stream.boxes.rest = None
        return 0

    cdef bint exceeds_bounds(self, ByteStream stream, size_t length, list batch) except -1:
        """Count the next frame. Returns True when it exceeds a bound and must be dropped.

        The message is delivered at once, so that its sender is answered however long it goes on.
        """
        if stream.truncating:
            stream.dropped_bytes += FRAME_COST  # frames without a body must come to an end, too
            return True
        stream.message_bytes += length + self.frame_cost
        stream.truncating = (self.max_bytes and stream.message_bytes > self.max_bytes) or (
            self.max_frames and stream.frame_count >= self.max_frames
        )
        if stream.truncating:
            stream.truncated_at = self.now
            self.deliver_truncated(stream, length, batch)
        return stream.truncating

    cdef size_t skip_input(self, ByteStream stream, size_t size) except? 999999999:
        """Drop up to `size` bytes of a frame, and end the connection beyond the bounds for that.

        Returns the number of bytes dropped.
        """
        if size > stream.skip_bytes:
            size = stream.skip_bytes
        stream.skip_bytes -= size
        stream.dropped_bytes += size
        if stream.skip_bytes == 0 and not stream.skip_more:
            self.reset_message(stream)
        elif (self.max_dropped and stream.dropped_bytes > self.max_dropped) or (
            self.max_dropping and self.now - stream.truncated_at > self.max_dropping
        ):
            self.end(stream, ENDLESS)
        return size

    cdef int begin_large(
        self, ByteStream stream, unsigned char* data, size_t here, size_t length, bint more
    ) except -1:
        cdef size_t room = length if length < FIRST_LARGE else FIRST_LARGE
        cdef object made
        while room < here:
            room *= 2
        if room > length:
            room = length
        made = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>room)
        memcpy(bytes_of(made), data, here)
        Py_INCREF(made)
        stream.large = <PyObject*>made
        stream.large_at, stream.large_capacity, stream.large_size = here, room, length
        stream.large_more = more
        return 0

    cdef int add_frame(self, ByteStream stream, object frame, bint more, list batch) except -1:
        """Add a frame to the message that is being read.

        Most messages have at most two frames: for those the list is made once, in its final size.
        """
        if stream.frames is not None:
            stream.frames.append(frame)
        elif stream.first is not None:
            stream.frames = [stream.first, frame]
            stream.first = None
        elif more:
            stream.first = frame
        else:
            stream.frames = [frame]
        if more:
            stream.frame_count += 1
            return 0
        return self.complete_message(stream, batch)

    cdef int complete_message(self, ByteStream stream, list batch) except -1:
        cdef list frames = stream.frames
        self.reset_message(stream)
        return self.deliver(stream, frames, batch)

    cdef void reset_message(self, ByteStream stream) noexcept:
        """Forget what was counted of a message that has come to its end."""
        stream.frames = None
        stream.message_bytes = stream.dropped_bytes = stream.frame_count = 0
        stream.truncating = False

    cdef int deliver_truncated(self, ByteStream stream, size_t length, list batch) except -1:
        """Deliver a message that exceeds a bound: a `Cut` of `length` stands for the frame that
        does, and for all behind it."""
        cdef list frames = stream.frames
        if frames is None:
            frames = [] if stream.first is None else [stream.first]
        stream.frames = stream.first = None
        stream.message_bytes = stream.frame_count = 0
        frames.append(Cut(length))
        self.truncated += 1
        return self.deliver(stream, frames, batch)

    cdef int handle_command(self, ByteStream stream, unsigned char* data, size_t size) except -1:
        """Answer PING. RFC 37: "a PING command … the peer SHALL respond with PONG", with its context.

        Other commands are ignored. While output is unsent, PING gets no PONG: the output shows that
        the connection lives, and a peer that pings and never reads cannot fill the buffer.
        """
        cdef bytes context
        cdef size_t length
        if size < 7 or memcmp(data, b"\x04PING", 5) != 0 or stream.out != NULL:
            return 0
        length = size - 7 if size - 7 < 16 else 16
        context = PyBytes_FromStringAndSize(<char*>data + 7, <Py_ssize_t>length)
        return stream.put_command(b"\x04PONG" + context)

    # ── the handshake ─────────────────────────────────────────────────────────────────────────────

    cdef int begin_handshake(self, ByteStream stream) except -1:
        """Send our signature. RFC 37: "each peer SHALL send a greeting".

        The rest follows once the peer's version is known: an older one would misread it.
        """
        stream.state = AWAIT_SIGNATURE
        stream.put_raw(OUR_SIGNATURE)
        return self.flush(stream)

    cdef size_t handshake_step(self, ByteStream stream, unsigned char* data, size_t size) except? 999999999:
        """Handle the next part of the handshake.

        Returns the number of bytes that it had; 0 when more are needed.
        """
        if stream.state == AWAIT_SIGNATURE:
            return self.read_signature(stream, data, size)
        if stream.state == AWAIT_GREETING:
            return self.read_greeting(stream, data, size)
        if stream.state == AWAIT_TYPE:
            if size == 0:
                return 0
            stream.state = AWAIT_IDENTITY
            return 1
        if stream.state == AWAIT_IDENTITY:
            return self.read_identity(stream, data, size)
        return self.read_command(stream, data, size)

    cdef int set_mechanism(self, bytes name, bint as_server) except -1:
        """Set the mechanism of all connections; `name` is as the greeting holds it."""
        self.mechanism_name = name
        self.greeting = b"\x01" + name + bytes([as_server]) + bytes(31)
        return 0

    cdef size_t read_signature(self, ByteStream stream, unsigned char* data, size_t size) except? 999999999:
        if size and data[0] != 0xFF or size > 9 and not data[9] & 1:
            self.end(stream, NOT_ZMTP)
            return 0
        if size < SIGNATURE:
            return 0
        if data[10] >= 3:
            stream.put_raw(self.greeting)
            stream.state = AWAIT_GREETING
        elif self.mechanism_name != NULL_NAME:
            self.other_mechanism = b"NULL"  # ZMTP/2.0 has no mechanisms
            self.end(stream, ANOTHER_MECHANISM)
            return 0
        elif data[10] >= 1:
            stream.put_raw(self.zmtp2_ready)
            stream.state = AWAIT_TYPE
        else:
            self.end(stream, MALFORMED)  # ZMTP/1.0 has other frames
            return 0
        self.flush(stream)
        return SIGNATURE

    cdef size_t read_greeting(self, ByteStream stream, unsigned char* data, size_t size) except? 999999999:
        """Check the mechanism: both peers must have the same.

        RFC 37: "a peer SHALL NOT assume" another one. The peer's as-server proves nothing: libzmq
        sends 0 as a server too.
        """
        if size < GREETING - SIGNATURE:
            return 0
        if memcmp(data + 1, bytes_of(self.mechanism_name), 20) != 0:
            self.other_mechanism = (<char*> data)[1:21].rstrip(b"\0")
            self.end(stream, ANOTHER_MECHANISM)
            return 0
        stream.mechanism = self.make_mechanism()
        stream.put_raw(stream.mechanism.begin())
        stream.state = AWAIT_COMMAND
        self.advance(stream)
        self.flush(stream)
        return GREETING - SIGNATURE

    cdef size_t read_command(
        self, ByteStream stream, unsigned char* data, size_t size
    ) except? 999999999:
        """Hand the next command to the mechanism, and send what it answers.

        A handshake that waits for us, for the authenticator or for its routing id, has consumed its
        last command.
        """
        cdef size_t head = 2, length
        cdef int n
        cdef Mechanism mechanism = stream.mechanism
        if mechanism.stage != WORKING:
            if mechanism.strict and size:
                self.end(stream, MALFORMED)
            elif not stream.held:
                self.advance(stream)
            return 0
        if size < 2:
            return 0
        if data[0] & ~LONG != COMMAND:
            self.end(stream, MALFORMED)
            return 0
        length = data[1]
        if data[0] & LONG:
            if size < 9:
                return 0
            length, head = 0, 9
            for n in range(8):
                if length > MAX_COMMAND:
                    break
                length = (length << 8) | data[1 + n]
        if length > mechanism.longest or (mechanism.strict and size - head > length):
            self.end(stream, MALFORMED)
            return 0
        if size - head < length:
            return 0
        if mechanism.cost and not self.may_spend(stream, mechanism.cost):
            self.postpone(stream)
            return 0
        answer = mechanism.receive(
            PyBytes_FromStringAndSize(<char*>data + head, <Py_ssize_t>length), self.now
        )
        if answer:
            stream.put_raw(answer)
        self.advance(stream)
        return head + length

    cdef int advance(self, ByteStream stream) except -1:
        """Do what the mechanism waits for: authenticate the peer, accept it, or end."""
        cdef Mechanism mechanism = stream.mechanism
        cdef int status
        if mechanism.stage == ASKING:
            if stream.serial == 0:
                status = self.authenticate(stream)
            else:
                status = stream.verdict
            if status == 0:
                stream.held = True
                return 0
            stream.serial = stream.verdict = 0
            answer = mechanism.decide(status)
            if answer:
                stream.put_raw(answer)
        if mechanism.stage == FAILED:
            if stream.out != NULL and not stream.write_watched:
                self.flush(stream)
            return self.end(stream, mechanism.failure)
        if mechanism.stage == DONE:
            return self.open_connection(stream, mechanism.identity, mechanism.kind)
        return 0

    cdef int open_connection(self, ByteStream stream, bytes peer, bytes kind) except -1:
        """Accept the peer, and open the connection; see `accept_peer`."""
        cdef str why = MALFORMED
        if len(peer) <= MAX_ID:
            why = self.accept_peer(stream, peer, kind)
        if why is NOT_YET:
            stream.held = True
            return 0
        if why is not None:
            return self.end(stream, why)
        if stream.mechanism is not None:
            answer = stream.mechanism.finish()
            if answer:
                stream.put_raw(answer)
            stream.boxes, stream.mechanism = stream.mechanism.boxes, None
        stream.state = OPEN
        self.reported.append((HANDSHAKE_DONE, stream.fd, stream.peer, ""))
        return 0

    cdef size_t read_identity(
        self, ByteStream stream, unsigned char* data, size_t size
    ) except? 999999999:
        """Read the frame with the peer's identity, which ZMTP/2.0 has in the place of READY."""
        cdef size_t length
        cdef int status
        if size < 2:
            return 0
        length = data[1]
        if data[0] != 0:
            self.end(stream, MALFORMED)
            return 0
        if size - 2 < length:
            return 0
        if stream.serial == 0:
            status = self.authenticate(stream)
            if status != ACCEPTED:
                self.end(stream, f"{REFUSED}{status}")
                return 0
        self.open_connection(
            stream, PyBytes_FromStringAndSize(<char*>data + 2, <Py_ssize_t>length), b""
        )
        return 2 + length if stream.state == OPEN else 0
