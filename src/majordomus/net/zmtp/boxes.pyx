# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The encrypted messages of one open CURVE connection (RFC 26): keys, nonces and boxes.

A box is the body of one frame: "\\7MESSAGE", the nonce, then MAC, flags and text, encrypted. The
nonce of each direction is exactly one more than that of the box before: a box that was removed,
repeated or moved ends the connection. RFC 26 asks for increasing nonces only.

A *bundle* is a box with several whole frames (docs/spec/zmtp-bundles.md), between peers that both
offer it.
"""

import os

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy
from majordomus.net.zmtp.bytes_access cimport bytes_of, size_of
from majordomus.net.zmtp.sodium cimport (
    begin_check,
    check_more,
    check_size,
    end_check,
    seal,
    subkey,
    unseal,
    wipe,
)

cdef enum:
    NAME = 8
    SEALED = 16  # where MAC and ciphertext begin
    LONG = 0x02

cdef bytes MESSAGE = b"\x07MESSAGE"
cdef uint64_t LAST_NONCE = <uint64_t>0xFFFFFFFFFFFF0000
"""No box has a higher nonce: a nonce must not be used twice."""

cdef int forks = 0


def _forked():
    global forks
    forks += 1


os.register_at_fork(after_in_child=_forked)


cdef uint64_t read_nonce(const unsigned char* at) noexcept:
    cdef uint64_t nonce = 0
    cdef int n
    for n in range(8):
        nonce = (nonce << 8) | at[n]
    return nonce


cdef void write_nonce(unsigned char* at, uint64_t nonce) noexcept:
    cdef int n
    for n in range(8):
        at[n] = <unsigned char>((nonce >> (8 * (7 - n))) & 0xFF)


cdef class Boxes:
    """The keys of a connection. They are overwritten when it ends."""

    def __dealloc__(self):
        if self.generation >= 0:
            wipe(self.send_key, 32)
            wipe(self.receive_key, 32)
        if self.state != NULL:
            wipe(<void*>((<uintptr_t>self.state + 15) & ~<uintptr_t>15), check_size())
            free(self.state)

    def __cinit__(self):
        self.generation = -1

    cdef void begin(
        self, const unsigned char* key, const unsigned char* send, const unsigned char* receive,
        uint64_t sent, uint64_t received,
    ) noexcept:
        """Take the key of a handshake; `send` and `receive` are what all nonces begin with."""
        subkey(self.send_key, send, key)
        subkey(self.receive_key, receive, key)
        self.sent, self.received, self.generation = sent, received, forks

    cdef bint usable(self) noexcept:
        """Whether a box may be sealed. After a fork only the parent may: the child would use the
        same nonces."""
        return self.generation == forks and self.sent < LAST_NONCE

    cdef bint exhausted(self) noexcept:
        """Whether no nonce is left."""
        return self.sent >= LAST_NONCE

    cdef size_t write_frame(
        self, unsigned char* at, unsigned char flags, const unsigned char* text, size_t size
    ) noexcept:
        """Write a frame with one box. Returns the bytes that it takes."""
        cdef size_t length = size + BOX_HEAD, head = 2
        if length <= 255:
            at[0], at[1] = 0, <unsigned char>length
        else:
            at[0], head = LONG, LONG_HEAD
            write_nonce(at + 1, length)
        at += head
        memcpy(at, bytes_of(MESSAGE), NAME)
        self.sent += 1
        write_nonce(at + NAME, self.sent)
        seal(at + SEALED, flags, text, size, at + NAME, self.send_key)
        return head + length

    cdef void write_bundle(self, unsigned char* at, size_t size) noexcept:
        """Encrypt `size` bytes of frames where they are, at `at` + BUNDLE_HEAD."""
        at[0] = LONG
        write_nonce(at + 1, size + BOX_HEAD)
        at += LONG_HEAD
        memcpy(at, bytes_of(MESSAGE), NAME)
        self.sent += 1
        write_nonce(at + NAME, self.sent)
        seal(at + SEALED, BOX_BUNDLE, at + BOX_HEAD, size, at + NAME, self.send_key)

    cdef bint is_next(self, const unsigned char* body) noexcept:
        """Whether the first BOX_HEAD bytes of a frame are those of the next box."""
        if memcmp(body, bytes_of(MESSAGE), NAME) != 0 or self.received == <uint64_t>-1:
            return False
        return read_nonce(body + NAME) == self.received + 1

    cdef bytes open(self, const unsigned char* body, size_t size, unsigned char* flags):
        """Open a box. Returns its text; None when it is forged, or not the next one."""
        cdef bytes text
        if size < BOX_HEAD or not self.is_next(body):
            return None
        text = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(size - BOX_HEAD))
        if unseal(
            flags, <unsigned char*>bytes_of(text), body + SEALED, size - SEALED, body + NAME,
            self.receive_key,
        ) != 0:
            return None
        self.received += 1
        return text

    cdef unsigned char begin_check(self, const unsigned char* body) except? 255:
        """Begin to check a box whose text is not kept. `is_next` was asked before.

        Returns its flags; they are proved when `checked` returns True.
        """
        if self.state == NULL:
            self.state = malloc(check_size() + 16)
            if self.state == NULL:
                raise MemoryError
        memcpy(self.mac, body + SEALED, 16)
        self.received += 1
        return begin_check(self.aligned(), body + SEALED, body + NAME, self.receive_key)

    cdef void check(self, const unsigned char* data, size_t size) noexcept:
        """Go on with the next bytes of that box."""
        check_more(self.aligned(), data, size)

    cdef bint checked(self) noexcept:
        """Whether the box that ends here is genuine."""
        return end_check(self.aligned(), self.mac) == 0

    cdef void* aligned(self) noexcept:
        return <void*>((<uintptr_t>self.state + 15) & ~<uintptr_t>15)

    # ── for tests ─────────────────────────────────────────────────────────────────────────────────

    def seal_frame(self, int flags, bytes text not None):
        """Return the frame of a box with these flags."""
        cdef bytes made = bytes(LONG_HEAD + BOX_HEAD + size_of(text))
        cdef size_t size = self.write_frame(
            <unsigned char*>bytes_of(made), <unsigned char>flags, <unsigned char*>bytes_of(text),
            <size_t>size_of(text),
        )
        return made[:size]

    def open_body(self, bytes body not None):
        """Return (flags, text) of the body of a frame; None when it is refused."""
        cdef unsigned char flags = 0
        text = self.open(<unsigned char*>bytes_of(body), <size_t>size_of(body), &flags)
        return None if text is None else (flags, text)

    def start(self, bytes key not None, bint as_server, uint64_t sent, uint64_t received):
        """Begin with the key of a handshake, and the nonces of the last boxes."""
        cdef bytes here = b"CurveZMQMESSAGES" if as_server else b"CurveZMQMESSAGEC"
        cdef bytes there = b"CurveZMQMESSAGEC" if as_server else b"CurveZMQMESSAGES"
        self.begin(
            <unsigned char*>bytes_of(key), <unsigned char*>bytes_of(here),
            <unsigned char*>bytes_of(there), sent, received,
        )

    def seal_bundle(self, bytes frames not None):
        """Return the frame of a bundle."""
        cdef bytes made = bytes(BUNDLE_HEAD) + frames
        self.write_bundle(<unsigned char*>bytes_of(made), <size_t>size_of(frames))
        return made
