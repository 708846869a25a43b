# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Moves messages from one socket to another, straight on libzmq. No rule is in it.

`pump.py` has the same classes on plain pyzmq and says what each method means; one test class holds
for both. It links no libzmq: it calls the one that pyzmq has loaded, and refuses to load (ImportError,
with the reason) where that is not what it was written for. docs/adr/0003-native-wire.md tells why.
"""

import ctypes

import zmq
import zmq.backend

from majordomus.net.zmq.pump import BURST as _BURST
from majordomus.net.zmq.pump import Moved

from libc.errno cimport EAGAIN, EINTR, ENOTSOCK
from libc.stdint cimport uintptr_t
from libc.string cimport memset


# ── libzmq, as the zmq.h of 4.2 and later declares it ─────────────────────────────────────────────

cdef enum:
    DONTWAIT = 1
    SNDMORE = 2
    EVENTS = 15
    POLLIN = 1
    POLLOUT = 2

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
ctypedef int (*GetOption)(void*, int, void*, size_t*) noexcept nogil
ctypedef int (*Errno)() noexcept nogil
ctypedef void (*Version)(int*, int*, int*) noexcept nogil
ctypedef int (*Poll)(PollItem*, int, long) noexcept nogil

cdef MsgCall msg_init
cdef MsgCall msg_close
cdef MsgCall msg_more
cdef MsgOfSize msg_init_size
cdef MsgToMsg msg_copy
cdef MsgSize msg_size
cdef MsgData msg_data
cdef MsgTransfer msg_recv
cdef MsgTransfer msg_send
cdef GetOption get_option
cdef Errno last_errno
cdef Version version
cdef Poll poll


cdef uintptr_t _address(object library, str name) except 0:
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value


cdef int _find() except -1:
    """The addresses. Raises: ImportError when pyzmq has no libzmq that can be called from here."""
    global msg_init, msg_close, msg_more, msg_init_size, msg_copy, msg_size, msg_data
    global msg_recv, msg_send, get_option, last_errno, version, poll
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
        msg_size = <MsgSize>_address(library, "zmq_msg_size")
        msg_data = <MsgData>_address(library, "zmq_msg_data")
        msg_recv = <MsgTransfer>_address(library, "zmq_msg_recv")
        msg_send = <MsgTransfer>_address(library, "zmq_msg_send")
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


# ── sockets ───────────────────────────────────────────────────────────────────────────────────────

cdef object _error(int number):
    """What pyzmq would raise."""
    if number == zmq.ETERM:
        return zmq.ContextTerminated(number)
    return zmq.ZMQError(number)


cdef void* _handle(object socket) except NULL:
    """libzmq's own handle of an open socket."""
    cdef void* handle = <void*><uintptr_t>socket.underlying
    if socket.closed or handle == NULL:
        raise _error(ENOTSOCK)
    return handle


cdef int _receive(void* handle, Msg* msg) noexcept nogil:
    """0, or the errno; EAGAIN when nothing is there."""
    cdef int number
    while msg_recv(msg, handle, DONTWAIT) < 0:
        number = last_errno()
        if number != EINTR:
            return number
    return 0


cdef Py_ssize_t BURST = _BURST

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
    cdef bint waiting
    """Whether `msg` is the first part of a message that the target has not taken yet."""
    cdef bint full
    """Whether the target was full at the last attempt of a `Mover`."""

    def __cinit__(self, source, target):
        msg_init(&self.msg)
        self.source, self.target = source, target
        _handle(source)
        _handle(target)

    def __dealloc__(self):
        msg_close(&self.msg)

    def move(self, Py_ssize_t most):
        cdef void* source = _handle(self.source)
        cdef void* target = _handle(self.target)
        cdef int end
        with nogil:
            end = self._move(source, target, most)
        if end == ALL:
            return Moved.ALL
        if end == SOME:
            return Moved.SOME
        if end == FULL:
            return Moved.FULL
        raise _error(end)

    cdef int _move(self, void* source, void* target, Py_ssize_t most) noexcept nogil:
        """ALL, SOME, FULL, or an errno.

        The state of the target is asked for once: libzmq answers with a system call.
        """
        cdef int number, events
        cdef size_t size = sizeof(int)
        cdef bint more
        if get_option(target, EVENTS, &events, &size) != 0:
            return last_errno()
        if not events & POLLOUT:
            return FULL
        while most > 0:
            most -= 1
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


cdef enum:
    WAKER = 0  # the places of what is waited for
    CONTROL = 1
    FORTH = 2
    BACK = 3


cdef class Mover:
    """Waits for messages and moves them; see the twin in pump.py."""

    cdef object waker
    cdef object control
    cdef Pump forth
    cdef Pump back

    def __cinit__(self, waker, control, forth, back):
        self.waker, self.control = waker, control
        self.forth, self.back = forth, back

    def run(self, bint paused):
        cdef PollItem[4] items
        cdef Pump forth = self.forth, back = self.back
        cdef void* front = _handle(forth.source)
        cdef void* rear = _handle(forth.target)
        cdef bint both = back is not None
        cdef int count, end = 0
        memset(items, 0, sizeof(items))
        items[WAKER].fd = self.waker
        items[WAKER].events = POLLIN
        if self.control is not None:
            items[CONTROL].socket = _handle(self.control)
        else:
            items[CONTROL].fd = self.waker  # once more: it has to be something
        items[CONTROL].events = POLLIN
        count = CONTROL + 1 if paused else BACK + 1 if both else FORTH + 1
        with nogil:
            while True:
                if not paused:
                    _watch(forth, &items[FORTH], front, rear)
                    if both:
                        _watch(back, &items[BACK], rear, front)
                if poll(items, count, -1) < 0:
                    end = last_errno()
                    break
                if items[WAKER].revents or items[CONTROL].revents:
                    break
                if items[FORTH].revents:
                    end = forth._move(front, rear, BURST)
                    forth.full = end == FULL
                    if end > 0:
                        break
                if both and items[BACK].revents:
                    end = back._move(rear, front, BURST)
                    back.full = end == FULL
                    if end > 0:
                        break
                end = 0
        if end > 0 and end != EINTR:
            raise _error(end)
        return items[WAKER].revents != 0, self.control is not None and items[CONTROL].revents != 0


cdef inline void _watch(Pump pump, PollItem* item, void* source, void* target) noexcept nogil:
    """A pump waits for its target where that was full, else for its source."""
    item.socket = target if pump.full else source
    item.events = POLLOUT if pump.full else POLLIN
