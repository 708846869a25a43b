# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Batches of messages in, batches out, straight on libzmq: the native wire. No rule is in it.

`wire.py` is its twin on plain pyzmq and says what each method means; one test class holds for both.
It links no libzmq: it calls the one that pyzmq has loaded, and refuses to load (ImportError, with
the reason) where that is not what it was written for. docs/adr/0003-native-wire.md tells why it is
as it is.
"""

import ctypes

import zmq
import zmq.backend

from majordomus.net.bodies import Cut
from majordomus.net.zmq.wire import MAX_INPROC, NO_FRAMES

from cpython.buffer cimport (
    PyBUF_SIMPLE,
    PyBuffer_FillInfo,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EHOSTUNREACH, EINTR, ENOTSOCK
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset


cdef extern from "Python.h":
    char* PyBytes_AsString(object) except NULL
    Py_ssize_t PyBytes_Size(object) except -1
    int PyBytes_Check(object)


# ── libzmq, as the zmq.h of 4.2 and later declares it ─────────────────────────────────────────────

cdef enum:
    DONTWAIT = 1
    SNDMORE = 2
    SRCFD = 2
    TYPE = 16
    POLLIN = 1
    EVENTS = 15
    POLLOUT = 2
    DEALER = 5
    ROUTER = 6

cdef struct Msg:
    void* _[8]  # a zmq_msg_t is 64 bytes, aligned as pointers are

cdef struct PollItem:
    void* socket
    int fd
    short events
    short revents

ctypedef int (*MsgCall)(Msg*) noexcept nogil
ctypedef int (*MsgOfSize)(Msg*, size_t) noexcept nogil
ctypedef int (*MsgToMsg)(Msg*, Msg*) noexcept nogil
ctypedef size_t (*MsgSize)(Msg*) noexcept nogil
ctypedef void* (*MsgData)(Msg*) noexcept nogil
ctypedef int (*MsgTransfer)(Msg*, void*, int) noexcept nogil
ctypedef int (*MsgGet)(Msg*, int) noexcept nogil
ctypedef const char* (*MsgGets)(Msg*, const char*) noexcept nogil
ctypedef int (*GetOption)(void*, int, void*, size_t*) noexcept nogil
ctypedef int (*Errno)() noexcept nogil
ctypedef void (*Version)(int*, int*, int*) noexcept nogil
ctypedef int (*Poll)(PollItem*, int, long) noexcept nogil

cdef MsgCall msg_init
cdef MsgCall msg_close
cdef MsgCall msg_more
cdef MsgOfSize msg_init_size
cdef MsgToMsg msg_copy
cdef MsgToMsg msg_move
cdef MsgSize msg_size
cdef MsgData msg_data
cdef MsgTransfer msg_recv
cdef MsgTransfer msg_send
cdef MsgGet msg_get
cdef MsgGets msg_gets
cdef GetOption get_option
cdef Errno last_errno
cdef Version version
cdef Poll poll


cdef uintptr_t _address(object library, str name) except 0:
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value


cdef int _find() except -1:
    """The addresses. Raises: ImportError when pyzmq has no libzmq that can be called from here."""
    global msg_init, msg_close, msg_more, msg_init_size, msg_copy, msg_move, msg_size, msg_data
    global msg_recv, msg_send, msg_get, msg_gets, get_option, last_errno, version, poll
    home = zmq.backend.Socket.__module__
    if home != "zmq.backend.cython._zmq":
        raise ImportError(f"pyzmq runs on {home}, not on its Cython backend since release 26")
    try:
        library = ctypes.CDLL(zmq.backend.cython._zmq.__file__)
        msg_init = <MsgCall>_address(library, "zmq_msg_init")
        msg_close = <MsgCall>_address(library, "zmq_msg_close")
        msg_more = <MsgCall>_address(library, "zmq_msg_more")
        msg_init_size = <MsgOfSize>_address(library, "zmq_msg_init_size")
        msg_copy = <MsgToMsg>_address(library, "zmq_msg_copy")
        msg_move = <MsgToMsg>_address(library, "zmq_msg_move")
        msg_size = <MsgSize>_address(library, "zmq_msg_size")
        msg_data = <MsgData>_address(library, "zmq_msg_data")
        msg_recv = <MsgTransfer>_address(library, "zmq_msg_recv")
        msg_send = <MsgTransfer>_address(library, "zmq_msg_send")
        msg_get = <MsgGet>_address(library, "zmq_msg_get")
        msg_gets = <MsgGets>_address(library, "zmq_msg_gets")
        get_option = <GetOption>_address(library, "zmq_getsockopt")
        last_errno = <Errno>_address(library, "zmq_errno")
        version = <Version>_address(library, "zmq_version")
        poll = <Poll>_address(library, "zmq_poll")
    except (AttributeError, OSError) as error:
        raise ImportError(f"the libzmq of pyzmq cannot be called: {error}") from error
    return 0


cdef int _check() except -1:
    """Raises: ImportError unless that libzmq is the one pyzmq calls, and lays a message out as we
    do.
    """
    cdef int major = 0, minor = 0, patch = 0
    cdef Msg[3] made
    cdef unsigned char* bytes_of = <unsigned char*>made
    cdef bint good
    version(&major, &minor, &patch)
    if (major, minor, patch) != zmq.zmq_version_info():
        raise ImportError(f"pyzmq calls {zmq.zmq_version()}, found was {major}.{minor}.{patch}")
    if major != 4 or minor < 2:
        raise ImportError(f"libzmq {major}.{minor}.{patch} is not 4.2 or a later 4")
    memset(made, 0xA5, sizeof(made))
    if msg_init_size(&made[0], 100) != 0:
        raise ImportError("libzmq makes no message")
    good = msg_size(&made[0]) == 100 and msg_data(&made[0]) != NULL and not msg_more(&made[0])
    good = good and msg_init(&made[1]) == 0 and msg_copy(&made[1], &made[0]) == 0
    good = good and msg_data(&made[0]) == msg_data(&made[1])
    for at in range(2 * sizeof(Msg), 3 * sizeof(Msg)):
        good = good and bytes_of[at] == 0xA5
    if not good:
        raise ImportError(f"libzmq {major}.{minor}.{patch} lays its messages out in another way")
    msg_close(&made[1])
    msg_close(&made[0])
    return 0


_find()
_check()


# ── frames ────────────────────────────────────────────────────────────────────────────────────────

cdef enum:
    _SMALL = 4096

SMALL = _SMALL
"""Frames of up to this many bytes are `bytes`, larger ones a SharedFrame.

libzmq reads 8 KiB at a time, and a frame that lies within such a read keeps all of it in memory: a
frame of 1 KiB, held for a minute in a queue, could hold eight. Larger than half of it, it is worth
not being copied.
"""


cdef class SharedFrame:
    """A large frame as libzmq holds it: sent any number of times without being copied. Immutable.

    It does what `bytes` does as far as a broker asks: `len`, `[…]` (gives bytes), `==` and `hash`
    by content, the buffer protocol, and with it `bytes()` and `b"".join`.
    """

    cdef Msg msg

    def __cinit__(self):
        msg_init(&self.msg)

    def __dealloc__(self):
        msg_close(&self.msg)

    def __len__(self):
        return <Py_ssize_t>msg_size(&self.msg)

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(
            view, self, msg_data(&self.msg), <Py_ssize_t>msg_size(&self.msg), 1, flags
        )

    def __bytes__(self):
        return PyBytes_FromStringAndSize(
            <char*>msg_data(&self.msg), <Py_ssize_t>msg_size(&self.msg)
        )

    def __getitem__(self, key):
        view = memoryview(self)[key]
        return view if isinstance(view, int) else view.tobytes()

    def __eq__(self, other):
        if self is other:
            return True
        try:
            return memoryview(self) == memoryview(other)
        except TypeError:
            return NotImplemented

    def __hash__(self):
        return hash(bytes(self))

    def __repr__(self):
        return f"<SharedFrame of {len(self)} bytes>"

    def __reduce__(self):
        return bytes, (bytes(self),)


cdef object _frame(Msg* msg, bint as_bytes):
    """The received part as an object; a large one is moved out of `msg`."""
    cdef size_t size = msg_size(msg)
    cdef SharedFrame shared
    if as_bytes or size <= _SMALL:
        return PyBytes_FromStringAndSize(<char*>msg_data(msg), <Py_ssize_t>size)
    shared = SharedFrame.__new__(SharedFrame)
    msg_move(&shared.msg, msg)
    return shared


cdef Py_ssize_t _to_msg(object frame, Msg* msg) except -1:
    """Makes `msg` out of `frame`;

    the result is how many bytes were copied. When it raises, nothing is to be closed.
    """
    cdef Py_buffer view
    cdef Py_ssize_t size
    if isinstance(frame, SharedFrame):
        msg_init(msg)
        msg_copy(msg, &(<SharedFrame>frame).msg)
        return 0
    if PyBytes_Check(frame):
        size = PyBytes_Size(frame)
        if msg_init_size(msg, <size_t>size) != 0:
            raise MemoryError
        memcpy(msg_data(msg), PyBytes_AsString(frame), <size_t>size)
        return size
    PyObject_GetBuffer(frame, &view, PyBUF_SIMPLE)
    try:
        if msg_init_size(msg, <size_t>view.len) != 0:
            raise MemoryError
        memcpy(msg_data(msg), view.buf, <size_t>view.len)
        return view.len
    finally:
        PyBuffer_Release(&view)


# ── sockets ───────────────────────────────────────────────────────────────────────────────────────

cdef object _error(int number):
    """What pyzmq would raise."""
    if number == zmq.ETERM:
        return zmq.ContextTerminated(number)
    return zmq.ZMQError(number)


cdef void* _handle(object socket, int kind) except NULL:
    """libzmq's own handle of an open socket. Raises: TypeError for a socket of another kind."""
    cdef int is_kind = 0
    cdef size_t size = sizeof(int)
    cdef void* handle = <void*><uintptr_t>socket.underlying
    if socket.closed or handle == NULL:
        raise _error(ENOTSOCK)
    if get_option(handle, TYPE, &is_kind, &size) != 0:
        raise _error(last_errno())
    if kind >= 0 and is_kind != kind:
        raise TypeError(f"a socket of type {is_kind}, where {kind} is needed")
    return handle


cdef int _receive(void* handle, Msg* msg) noexcept nogil:
    """0, or the errno; EAGAIN when nothing is there."""
    cdef int number
    while msg_recv(msg, handle, DONTWAIT) < 0:
        number = last_errno()
        if number != EINTR:
            return number
    return 0


cdef int _send(void* handle, Msg* msg, int more) noexcept nogil:
    """0, or the errno; then `msg` is still the caller's."""
    cdef int number
    while msg_send(msg, handle, DONTWAIT | more) < 0:
        number = last_errno()
        if number != EINTR:
            return number
    return 0


# ── what is sent ──────────────────────────────────────────────────────────────────────────────────

cdef enum:
    CHUNK = 256  # messages made before any is sent
    CHUNK_BYTES = 1 << 20  # no more are made once so many bytes were copied


cdef class _Outbound:
    """Messages are made while the GIL is held and sent while it is not, a chunk at a time."""

    cdef object socket
    cdef bint routed
    cdef void* handle
    cdef Msg* parts
    cdef int room  # for so many parts
    cdef int used
    cdef int count  # of messages
    cdef size_t copied
    cdef int refused
    cdef int[CHUNK] first  # index of the first part of message n
    cdef int[CHUNK] end
    cdef int[CHUNK] status  # 0, or the errno that refused message n

    def __cinit__(self, object socket, bint routed):
        self.socket = socket
        self.routed = routed

    def __dealloc__(self):
        free(self.parts)

    cdef list send_all(self, list batch):
        """What was refused, as (index, errno), in order."""
        cdef list refused = []
        cdef dict stopped = {}
        cdef Py_ssize_t start = 0, total = len(batch)
        cdef int n, number
        self.handle = _handle(self.socket, -1)
        while start < total:
            try:
                self.make_chunk(batch, start, stopped)
                with nogil:
                    number = self.send_chunk()
                if number != 0:
                    raise _error(number)
                if self.refused:
                    for n in range(self.count):
                        if self.status[n] != 0:
                            refused.append((start + n, self.status[n]))
                            stopped[batch[start + n][0] if self.routed else None] = self.status[n]
                start += self.count
            finally:
                self.clear()
        return refused

    cdef int make_chunk(self, list batch, Py_ssize_t start, dict stopped) except -1:
        cdef Py_ssize_t at
        cdef tuple one
        for at in range(start, min(start + CHUNK, len(batch))):
            if self.routed:
                one = <tuple>batch[at]
                peer, frames = one[0], one[1]
            else:
                peer, frames = None, batch[at]
            if stopped and peer in stopped:
                self.first[self.count] = self.end[self.count] = self.used
                self.status[self.count] = stopped[peer]
                self.refused += 1
            else:
                self.make_message(peer, frames)
            self.count += 1
            if self.copied > CHUNK_BYTES:
                break
        return 0

    cdef int make_message(self, object peer, object frames) except -1:
        if not frames:
            raise ValueError(NO_FRAMES)
        self.first[self.count] = self.used
        if self.routed:
            self.make_part(peer)
        for frame in frames:
            self.make_part(frame)
        self.end[self.count] = self.used
        self.status[self.count] = 0
        return 0

    cdef int make_part(self, object frame) except -1:
        cdef Msg* larger
        cdef Py_ssize_t copied
        if self.used == self.room:
            larger = <Msg*>realloc(self.parts, (2 * self.room + CHUNK) * sizeof(Msg))
            if larger == NULL:
                raise MemoryError
            self.parts = larger
            self.room = 2 * self.room + CHUNK
        copied = _to_msg(frame, &self.parts[self.used])
        self.copied += <size_t>copied
        self.used += 1
        return 0

    cdef int send_chunk(self) noexcept nogil:
        """0, or the errno of what is no refusal."""
        cdef int n, number
        for n in range(self.count):
            if self.status[n] != 0:
                continue
            if self.refused:
                self.status[n] = self.refused_before(n)
            if self.status[n] == 0:
                number = self.send_message(n)
                if number != 0:
                    self.refused += 1
                    return number
            if self.status[n] != 0:
                self.refused += 1
        return 0

    cdef int send_message(self, int n) noexcept nogil:
        """0, or the errno of what is no refusal; `status[n]` is set when it was one.

        Only a first part can be refused, with one exception (libzmq's lb_t::send): when the one
        connection of a DEALER ends in the middle of a message, the next part gets EAGAIN, what was
        written is taken back, and the parts after it are swallowed up to the last. So the rest has
        to be sent all the same.
        """
        cdef int at, number
        for at in range(self.first[n], self.end[n]):
            number = _send(self.handle, &self.parts[at], SNDMORE if at + 1 < self.end[n] else 0)
            if number == 0:
                continue
            if number != EAGAIN and number != EHOSTUNREACH:
                return number
            self.status[n] = number
            if at == self.first[n]:
                return 0
        return 0

    cdef int refused_before(self, int n) noexcept nogil:
        """The errno that refused an earlier message of this chunk to the same peer, or 0."""
        cdef int earlier
        cdef Msg* peer = &self.parts[self.first[n]]
        cdef size_t size = msg_size(peer)
        cdef Msg* other
        for earlier in range(n):
            if self.status[earlier] == 0 or self.first[earlier] == self.end[earlier]:
                continue
            if not self.routed:
                return self.status[earlier]
            other = &self.parts[self.first[earlier]]
            if msg_size(other) == size and memcmp(msg_data(other), msg_data(peer), size) == 0:
                return self.status[earlier]
        return 0

    cdef void clear(self) noexcept:
        """Closes what was not sent; what libzmq took, it left empty."""
        cdef int at
        for at in range(self.used):
            msg_close(&self.parts[at])
        self.used = self.count = self.refused = 0
        self.copied = 0


# ── the wires ─────────────────────────────────────────────────────────────────────────────────────

cdef enum:
    SLOTS = 1024


cdef class RouterWire:
    """A ROUTER with MANDATORY set; see the twin."""

    cdef object socket
    cdef _Outbound out
    cdef void* handle
    cdef Msg msg
    cdef Py_ssize_t max_frames
    cdef size_t max_bytes
    cdef list slots  # noted routing ids by a hash: spares making and finding them
    cdef dict noted
    cdef set inproc
    cdef list new

    def __cinit__(self, socket, *, Py_ssize_t max_frames=0, size_t max_bytes=0):
        msg_init(&self.msg)
        self.socket = socket
        self.handle = _handle(socket, ROUTER)
        self.out = _Outbound(socket, True)
        self.max_frames = max_frames
        self.max_bytes = max_bytes
        self.slots = [None] * SLOTS
        self.noted = {}
        self.inproc = set()
        self.new = []

    def __dealloc__(self):
        msg_close(&self.msg)

    def receive(self, Py_ssize_t most):
        return self._receive(most, False)

    def receive_with_users(self, Py_ssize_t most):
        return self._receive(most, True)

    def send(self, list batch not None):
        return self.out.send_all(batch)

    def connections(self):
        new, self.new = self.new, []
        return new

    def forget(self, bytes peer not None):
        self.noted.pop(peer, None)
        slot = _slot(PyBytes_AsString(peer), <size_t>PyBytes_Size(peer))
        if self.slots[slot] == peer:
            self.slots[slot] = None

    cdef list _receive(self, Py_ssize_t most, bint users):
        cdef list batch = [], frames
        cdef int number
        cdef bytes peer
        cdef bint known
        self.handle = _handle(self.socket, -1)
        while len(batch) < most:
            number = _receive(self.handle, &self.msg)
            if number == EAGAIN:
                break
            if number != 0:
                raise _error(number)
            peer = self._known()
            known = peer is not None
            if not known:
                peer = _frame(&self.msg, True)
            self._next()
            if not known:
                self._note(peer)
            user = self._user() if users else None
            frames = self._frames()
            batch.append((peer, frames, user) if users else (peer, frames))
        return batch

    cdef bytes _known(self):
        """The routing id in `msg`, when it was noted and found before."""
        cdef char* data = <char*>msg_data(&self.msg)
        cdef size_t size = msg_size(&self.msg)
        cached = self.slots[_slot(data, size)]
        if cached is None or <size_t>PyBytes_Size(cached) != size:
            return None
        return cached if memcmp(PyBytes_AsString(cached), data, size) == 0 else None

    cdef int _next(self) except -1:
        """The next part of a message that has one:

        libzmq hands on no message before all of it is there.
        """
        cdef int number = _receive(self.handle, &self.msg)
        if number != 0:
            raise _error(number)
        return 0

    cdef int _note(self, bytes peer) except -1:
        """`msg` is the first part behind the routing id `peer`."""
        cdef int fd
        if peer not in self.noted and peer not in self.inproc:
            fd = msg_get(&self.msg, SRCFD)
            if fd < 0:
                if len(self.inproc) >= MAX_INPROC:
                    self.inproc.clear()
                self.inproc.add(peer)
            else:
                self.noted[peer] = fd
                self.new.append((peer, fd))
        self.slots[_slot(PyBytes_AsString(peer), <size_t>PyBytes_Size(peer))] = peer
        return 0

    cdef str _user(self):
        cdef const char* user = msg_gets(&self.msg, b"User-Id")
        return "" if user == NULL else (<bytes>user).decode("utf-8", "surrogateescape")

    cdef list _frames(self):
        """All parts from `msg` on; beyond the bounds they are read, but not kept."""
        cdef list frames = []
        cdef size_t size, kept = 0, dropped = 0
        cdef bint more, cutting = False
        while True:
            more = msg_more(&self.msg)
            size = msg_size(&self.msg)
            kept += size
            cutting = cutting or (self.max_bytes and kept > self.max_bytes)
            cutting = cutting or (self.max_frames and len(frames) >= self.max_frames)
            if cutting:
                dropped += size
            else:
                frames.append(_frame(&self.msg, False))
            if not more:
                break
            self._next()
        if cutting:
            frames.append(Cut(dropped))
        return frames


cdef inline size_t _slot(char* data, size_t size) noexcept:
    """Random ids differ in their last bytes, and so do those that libzmq counts up."""
    cdef size_t at, mixed = size
    for at in range(size - 4 if size > 4 else 0, size):
        mixed = mixed * 131 + <unsigned char>data[at]
    return (mixed ^ (mixed >> 10)) & (SLOTS - 1)


cdef class DealerWire:
    """A DEALER with one connection; see the twin. Its frames are `bytes`, whatever their size."""

    cdef object socket
    cdef _Outbound out
    cdef Msg msg

    def __cinit__(self, socket):
        msg_init(&self.msg)
        _handle(socket, DEALER)
        self.socket = socket
        self.out = _Outbound(socket, False)

    def __dealloc__(self):
        msg_close(&self.msg)

    def receive(self, Py_ssize_t most):
        cdef list batch = [], frames
        cdef int number
        cdef bint more
        cdef void* handle = _handle(self.socket, -1)
        while len(batch) < most:
            number = _receive(handle, &self.msg)
            if number == EAGAIN:
                break
            frames = []
            while number == 0:
                more = msg_more(&self.msg)
                frames.append(_frame(&self.msg, True))
                if not more:
                    break
                number = _receive(handle, &self.msg)
            if number != 0:
                raise _error(number)
            batch.append(frames)
        return batch

    def send(self, list batch not None):
        return self.out.send_all(batch)

    def readable(self):
        cdef int events = 0
        cdef size_t size = sizeof(events)
        if get_option(_handle(self.socket, -1), EVENTS, &events, &size) != 0:
            raise _error(last_errno())
        return bool(events & POLLIN)


# ── waiting ───────────────────────────────────────────────────────────────────────────────────────

cdef enum:
    MOST_WAITED_FOR = 8


cdef class Wait:
    """Waits for sockets and descriptors to become readable; see the twin."""

    cdef list sources
    cdef PollItem[MOST_WAITED_FOR] items

    def __cinit__(self, *sources):
        if len(sources) > MOST_WAITED_FOR:
            raise ValueError(f"at most {MOST_WAITED_FOR} can be waited for")
        self.sources = list(sources)

    def __call__(self, long milliseconds):
        cdef int n, ready, number = 0, count = <int>len(self.sources)
        cdef int mask = 0
        for n in range(count):
            source = self.sources[n]
            self.items[n].events = POLLIN
            self.items[n].revents = 0
            if isinstance(source, int):
                self.items[n].socket = NULL
                self.items[n].fd = source
            else:
                self.items[n].socket = _handle(source, -1)
        with nogil:
            ready = poll(self.items, count, milliseconds)
            if ready < 0:
                number = last_errno()
        if number == EINTR:
            PyErr_CheckSignals()
            return 0
        if number != 0:
            raise _error(number)
        for n in range(count):
            if self.items[n].revents:
                mask |= 1 << n
        return mask


# ── from socket to socket ─────────────────────────────────────────────────────────────────────────

cdef enum:
    ALL = -1
    SOME = -2
    FULL = -3


cdef class Pump:
    """Moves messages from one socket to another; see the twin in pump.py."""

    cdef readonly object source
    cdef readonly object target
    cdef readonly unsigned long long messages
    cdef readonly unsigned long long bytes
    cdef Msg msg
    cdef object moved
    cdef bint waiting
    """Whether `msg` is the first part of a message that the target has not taken yet."""

    def __cinit__(self, source, target):
        from majordomus.net.zmq.pump import Moved  # which imports what chooses this wire

        msg_init(&self.msg)
        self.moved = Moved
        self.source, self.target = source, target
        _handle(source, -1)
        _handle(target, -1)

    def __dealloc__(self):
        msg_close(&self.msg)

    def move(self, Py_ssize_t most):
        cdef void* source = _handle(self.source, -1)
        cdef void* target = _handle(self.target, -1)
        cdef int end
        with nogil:
            end = self._move(source, target, most)
        if end == ALL:
            return self.moved.ALL
        if end == SOME:
            return self.moved.SOME
        if end == FULL:
            return self.moved.FULL
        raise _error(end)

    cdef int _move(self, void* source, void* target, Py_ssize_t most) noexcept nogil:
        """ALL, SOME, FULL, or an errno."""
        cdef int number, events
        cdef size_t size
        cdef bint more
        while most > 0:
            most -= 1
            size = sizeof(int)
            if get_option(target, EVENTS, &events, &size) != 0:
                return last_errno()
            if not events & POLLOUT:
                return FULL
            if not self.waiting:
                number = _receive(source, &self.msg)
                if number != 0:
                    return ALL if number == EAGAIN else number
            more = msg_more(&self.msg)
            number = self._send(target, more)
            self.waiting = number == EAGAIN
            if number != 0:
                return FULL if number == EAGAIN else number
            while more:
                number = _receive(source, &self.msg)  # a message is there as a whole
                if number != 0:
                    return number
                more = msg_more(&self.msg)
                # Refused when the peer has left in the middle: libzmq drops the message then.
                number = self._send(target, more)
                if number != 0 and number != EAGAIN:
                    return number
            self.messages += 1
        return SOME

    cdef int _send(self, void* target, bint more) noexcept nogil:
        """0, or the errno; then `msg` is still ours."""
        cdef size_t size = msg_size(&self.msg)
        cdef int number
        while msg_send(&self.msg, target, DONTWAIT | (SNDMORE if more else 0)) < 0:
            number = last_errno()
            if number != EINTR:
                return number
        self.bytes += size
        return 0
