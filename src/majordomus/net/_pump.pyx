# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The native pump; pump.py is its twin and says what it promises. No rule is in it.

Like the native wire it calls the libzmq that pyzmq has loaded, and refuses to load where it cannot.
"""

import ctypes

import zmq
import zmq.backend

from majordomus.net.pump import Moved

from libc.errno cimport EAGAIN, EINTR, ENOTSOCK
from libc.stdint cimport uintptr_t


cdef enum:
    DONTWAIT = 1
    SNDMORE = 2
    EVENTS = 15
    POLLOUT = 2

cdef struct Msg:
    void* _[8]  # a zmq_msg_t is 64 bytes, aligned as pointers are

ctypedef int (*MsgCall)(Msg*) noexcept nogil
ctypedef size_t (*MsgSize)(Msg*) noexcept nogil
ctypedef int (*MsgTransfer)(Msg*, void*, int) noexcept nogil
ctypedef int (*GetOption)(void*, int, void*, size_t*) noexcept nogil
ctypedef int (*Errno)() noexcept nogil

cdef MsgCall msg_init
cdef MsgCall msg_close
cdef MsgCall msg_more
cdef MsgSize msg_size
cdef MsgTransfer msg_recv
cdef MsgTransfer msg_send
cdef GetOption get_option
cdef Errno last_errno


cdef uintptr_t _address(object library, str name) except 0:
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value


cdef int _find() except -1:
    """The addresses. Raises: ImportError when pyzmq has no libzmq that can be called from here."""
    global msg_init, msg_close, msg_more, msg_size, msg_recv, msg_send, get_option, last_errno
    home = zmq.backend.Socket.__module__
    if home != "zmq.backend.cython._zmq":
        raise ImportError(f"pyzmq runs on {home}, not on its Cython backend since release 26")
    try:
        library = ctypes.CDLL(zmq.backend.cython._zmq.__file__)
        msg_init = <MsgCall>_address(library, "zmq_msg_init")
        msg_close = <MsgCall>_address(library, "zmq_msg_close")
        msg_more = <MsgCall>_address(library, "zmq_msg_more")
        msg_size = <MsgSize>_address(library, "zmq_msg_size")
        msg_recv = <MsgTransfer>_address(library, "zmq_msg_recv")
        msg_send = <MsgTransfer>_address(library, "zmq_msg_send")
        get_option = <GetOption>_address(library, "zmq_getsockopt")
        last_errno = <Errno>_address(library, "zmq_errno")
    except (AttributeError, OSError) as error:
        raise ImportError(f"the libzmq of pyzmq cannot be called: {error}") from error
    return 0


_find()

cdef enum:
    ALL = -1
    SOME = -2
    FULL = -3


cdef class Pump:
    """See the twin."""

    cdef readonly object source
    cdef readonly object target
    cdef readonly unsigned long long messages
    cdef readonly unsigned long long bytes
    cdef Msg msg
    cdef bint waiting
    """Whether `msg` is the first part of a message that the target has not taken yet."""

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
        raise zmq.ZMQError(end)

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


cdef int _receive(void* handle, Msg* msg) noexcept nogil:
    """0, or the errno; EAGAIN when nothing is there."""
    cdef int number
    while msg_recv(msg, handle, DONTWAIT) < 0:
        number = last_errno()
        if number != EINTR:
            return number
    return 0


cdef void* _handle(socket) except NULL:
    """The socket of libzmq. Raises: ZMQError when it is closed."""
    cdef void* handle = <void*><uintptr_t>socket.underlying
    if socket.closed or handle == NULL:
        raise zmq.ZMQError(ENOTSOCK)
    return handle
