# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Security mechanisms of ZMTP 3.1: NULL (RFC 37), PLAIN (RFC 24) and CURVE (RFC 26). No I/O.

A mechanism is one side of one handshake. Its owner sends what `begin` returns behind the greeting,
hands each command of the peer to `receive`, and sends what that returns. Then `stage` says what is
next:

    WORKING → receive → WORKING | ASKING | DONE | FAILED
    ASKING  → decide  → WORKING | DONE | FAILED        the owner checks `credentials`
    DONE    → finish                                   the connection is open
    FAILED                                             `failure` has the reason; it is to be closed

All commands are whole frames with their headers. NULL and PLAIN send messages in the clear; CURVE
leaves `boxes`.

A CURVE server keeps 32 bytes of a client between HELLO and INITIATE: its own short-term key is in
the cookie. HELLO and INITIATE cost it two scalar multiplications each.
"""

from majordomus.net.zmtp import sodium

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint64_t
from libc.string cimport memcmp, memcpy, memset
from majordomus.net.zmtp.boxes cimport Boxes, read_nonce, write_nonce
from majordomus.net.zmtp.bytes_access cimport bytes_of, size_of
from majordomus.net.zmtp.sodium cimport (
    box,
    public_key,
    random_bytes,
    same,
    shared_key,
    unbox,
    wipe,
)

MALFORMED = "malformed"
REFUSED = "refused "
"""The start of a reason; the status code follows."""
WRONG_KEY = "wrong-server-key"
FORGED = "forged"
STALE_COOKIE = "stale-cookie"

NULL_NAME = b"NULL".ljust(20, b"\0")
"""The mechanism's name as the greeting holds it."""
PLAIN_NAME = b"PLAIN".ljust(20, b"\0")
CURVE_NAME = b"CURVE".ljust(20, b"\0")

ACCEPTED, TEMPORARY, DENIED, FAULT = 200, 300, 400, 500
"""Status codes of `decide`, as RFC 27 has them."""

LIBZMQ_PLAIN_ERROR = b"^RROR"
"""What libzmq has in PLAIN for b"\\5ERROR": its source has the text "\\x5ERROR", which C reads as
"\\x5E" and "RROR". Its clients understand nothing else, so a PLAIN server sends this."""

BUNDLE_PROPERTY = b"X-Majordomus-Bundle"

cdef int COMMAND_FLAG = 0x04
cdef int LONG_FLAG = 0x02

cdef enum:
    MAX_NAME = 255  # of a user, a password or a property
    # sizes of the commands of CURVE
    HELLO = 200
    WELCOME = 168
    INITIATE = 257  # without metadata
    READY = 30  # without metadata
    # places in them
    HELLO_KEY = 80
    HELLO_NONCE = 112
    HELLO_BOX = 120
    COOKIE = 96
    COOKIE_TEXT = 64
    VOUCH_TEXT = 64
    WELCOME_TEXT = 128
    INITIATE_COOKIE = 9
    INITIATE_NONCE = 105
    INITIATE_BOX = 113
    INITIATE_TEXT = 128  # key, nonce and box of the vouch; metadata follow

cdef double COOKIE_USED = 30.0  # seconds in which a cookie key makes cookies
cdef double COOKIE_VALID = 60.0  # seconds in which it opens them

cdef bytes TO_SERVER = b"CurveZMQMESSAGEC"
cdef bytes TO_CLIENT = b"CurveZMQMESSAGES"


# ── commands ──────────────────────────────────────────────────────────────────────────────────────


cdef bytes frame(bytes body):
    """Return the frame of a command."""
    if len(body) <= 255:
        return bytes([COMMAND_FLAG, len(body)]) + body
    return bytes([COMMAND_FLAG | LONG_FLAG]) + len(body).to_bytes(8) + body


cdef bytes metadata(bytes kind, bytes identity, bint bundles=False):
    cdef bytes made = b"\x0bSocket-Type" + len(kind).to_bytes(4) + kind
    made += b"\x08Identity" + len(identity).to_bytes(4) + identity
    if bundles:
        made += bytes([len(BUNDLE_PROPERTY)]) + BUNDLE_PROPERTY + b"\0\0\0\x011"
    return made


def ready(bytes kind not None, bytes identity=b""):
    """Return the frame of a READY command for this socket type and identity."""
    return frame(b"\x05READY" + metadata(kind, identity))


def refusal(bytes body not None):
    """Return the reason of a handshake that ended with this command instead of READY.

    RFC 37: "error = command-size %d5 'ERROR' error-reason"; libzmq sends the status code of RFC 27
    as the reason.
    """
    cdef bytes reason = body[7:]
    if body[:6] != b"\x05ERROR":
        return MALFORMED
    if len(reason) == 3 and reason.isdigit():
        return f"{REFUSED}{reason.decode('ascii')}"
    return f"{REFUSED}400"


cdef class Mechanism:
    """One side of a handshake. `kind` and `identity` are our socket type and routing id."""

    def __init__(self, bytes kind not None, bytes identity not None=b""):
        self.own = metadata(kind, identity)
        self.identity = self.kind = b""
        self.error_name = b"\x05ERROR"
        self.longest = MAX_COMMAND

    cpdef bytes begin(self):
        """Return what is sent first."""
        return b""

    cpdef bytes receive(self, bytes command, double now):
        """Handle the body of a command; return what is sent then. `stage` must be WORKING."""
        raise NotImplementedError

    cpdef bytes decide(self, int status):
        """Accept the credentials with the status ACCEPTED, or refuse them; return what is sent.

        RFC 27: 300 is a temporary failure; libzmq closes the connection without a word then, and
        the client tries again.
        """
        self.credentials = None
        if status == ACCEPTED:
            return self.accepted()
        self.fail(f"{REFUSED}{status}")
        return b"" if status == TEMPORARY else frame(self.error_name + b"\x03%03d" % status)

    cpdef bytes finish(self):
        """Return what is sent last, once the peer is accepted."""
        return b""

    cdef bytes accepted(self):
        self.stage = DONE
        return b""

    cdef bytes fail(self, str why):
        self.stage, self.failure = FAILED, why
        return b""

    cdef bint read_metadata(self, const unsigned char* data, size_t size) except -1:
        """Read the metadata of the peer. Returns False when they are malformed."""
        cdef size_t at = 0, name_size
        cdef uint64_t value_size
        cdef bytes name
        while at < size:
            name_size = data[at]
            if name_size == 0 or size - at < 1 + name_size + 4:
                return False
            name = PyBytes_FromStringAndSize(<char*>data + at + 1, <Py_ssize_t>name_size).lower()
            at += 1 + name_size  # RFC 37: "names are case-insensitive"
            value_size = (
                (<uint64_t>data[at] << 24) | (data[at + 1] << 16) | (data[at + 2] << 8) | data[at + 3]
            )
            at += 4
            if size - at < value_size:
                return False
            if name == b"identity":
                self.identity = PyBytes_FromStringAndSize(<char*>data + at, <Py_ssize_t>value_size)
            elif name == b"socket-type":
                self.kind = PyBytes_FromStringAndSize(<char*>data + at, <Py_ssize_t>value_size)
            elif name == b"x-majordomus-bundle":
                self.bundles = value_size == 1 and data[at] == c"1"
            at += value_size
        return True


# ── NULL ──────────────────────────────────────────────────────────────────────────────────────────


cdef class Null(Mechanism):
    """NULL, which is the same on both sides: each sends READY, or ERROR.

    A side that `asks` an authenticator sends READY last: a peer takes its connection for open when
    it reads READY, and would take ERROR for the end of an open connection.
    """

    cdef bint asks

    def __init__(self, bytes kind not None, bytes identity not None=b"", *, bint asks=False):
        Mechanism.__init__(self, kind, identity)
        self.name, self.asks = NULL_NAME, asks

    cpdef bytes begin(self):
        return b"" if self.asks else frame(b"\x05READY" + self.own)

    cpdef bytes finish(self):
        return frame(b"\x05READY" + self.own) if self.asks else b""

    cpdef bytes receive(self, bytes command, double now):
        cdef const unsigned char* data = <const unsigned char*>bytes_of(command)
        if command[:6] != b"\x05READY":
            return self.fail(refusal(command))
        if not self.read_metadata(data + 6, <size_t>size_of(command) - 6):
            return self.fail(MALFORMED)
        self.stage, self.credentials = ASKING, ()
        return b""


# ── PLAIN ─────────────────────────────────────────────────────────────────────────────────────────


cdef class PlainServer(Mechanism):
    """PLAIN on the side that asks for user and password."""

    cdef bint welcomed

    def __init__(self, bytes kind not None, bytes identity not None=b""):
        Mechanism.__init__(self, kind, identity)
        self.name, self.as_server, self.strict = PLAIN_NAME, True, True
        self.error_name = LIBZMQ_PLAIN_ERROR

    cpdef bytes receive(self, bytes command, double now):
        """RFC 24: "hello = command-size %d5 'HELLO' username password"; each is a short string."""
        cdef const unsigned char* data = <const unsigned char*>bytes_of(command)
        cdef size_t size = <size_t>size_of(command), user, password
        if self.welcomed:
            if command[:9] != b"\x08INITIATE" or not self.read_metadata(data + 9, size - 9):
                return self.fail(MALFORMED)
            self.stage = DONE
            return b""
        if command[:6] != b"\x05HELLO" or size < 8:
            return self.fail(MALFORMED)
        user = data[6]
        if size < 8 + user:
            return self.fail(MALFORMED)
        password = data[7 + user]
        if size != 8 + user + password:
            return self.fail(MALFORMED)
        self.stage, self.credentials = ASKING, (command[7 : 7 + user], command[8 + user :])
        return b""

    cdef bytes accepted(self):
        self.stage, self.welcomed = WORKING, True
        return frame(b"\x07WELCOME")

    cpdef bytes finish(self):
        return frame(b"\x05READY" + self.own)


cdef class PlainClient(Mechanism):
    """PLAIN on the side that has user and password, of 255 bytes at most."""

    cdef bytes hello
    cdef bint welcomed

    def __init__(
        self, bytes user not None, bytes password not None, bytes kind not None,
        bytes identity not None=b"",
    ):
        if len(user) > MAX_NAME or len(password) > MAX_NAME:
            raise ValueError("a user or password has at most 255 bytes")
        Mechanism.__init__(self, kind, identity)
        self.name = PLAIN_NAME
        self.hello = bytes([len(user)]) + user + bytes([len(password)]) + password

    cpdef bytes begin(self):
        return frame(b"\x05HELLO" + self.hello)

    cpdef bytes receive(self, bytes command, double now):
        cdef const unsigned char* data = <const unsigned char*>bytes_of(command)
        if command[:5] == LIBZMQ_PLAIN_ERROR:
            return self.fail(refusal(b"\x05ERROR" + command[5:]))
        if not self.welcomed and command == b"\x07WELCOME":
            self.welcomed = True
            return frame(b"\x08INITIATE" + self.own)
        if not self.welcomed or command[:6] != b"\x05READY":
            return self.fail(refusal(command))
        if not self.read_metadata(data + 6, <size_t>size_of(command) - 6):
            return self.fail(MALFORMED)
        self.stage = DONE
        return b""


# ── CURVE ─────────────────────────────────────────────────────────────────────────────────────────


cdef void nonce_of(unsigned char* nonce, const char* prefix, const unsigned char* rest, size_t size) noexcept:
    """Write a nonce of 24 bytes: a prefix, and the `size` bytes that a command holds."""
    memcpy(nonce, prefix, 24 - size)
    memcpy(nonce + 24 - size, rest, size)


cdef class CurveKeys:
    """The long-term keys of a server, and the keys of its cookies: one object for all connections.

    A cookie key makes cookies for COOKIE_USED seconds, and opens them for COOKIE_VALID. RFC 26: the
    server "SHALL discard" it within a minute. `random(n)` returns n random bytes; by default they
    are libsodium's.
    """

    def __init__(self, bytes public not None, bytes secret not None, random=None):
        cdef unsigned char[32] computed
        if sodium.problem:
            raise RuntimeError(sodium.problem)
        if len(public) != 32 or len(secret) != 32:
            raise ValueError("a key has 32 bytes")
        public_key(computed, <unsigned char*>bytes_of(secret))
        if not same(computed, <unsigned char*>bytes_of(public), 32):
            raise ValueError("the secret key does not belong to the public key")
        memcpy(self.public, bytes_of(public), 32)
        memcpy(self.secret, bytes_of(secret), 32)
        self.since = self.previous_until = float("-inf")
        self.random = random

    def __dealloc__(self):
        wipe_keys(self.secret)
        wipe_keys(self.cookie_key)
        wipe_keys(self.previous_key)

    cdef int fill(self, unsigned char* out, size_t size) except -1:
        cdef bytes made
        if self.random is None:
            random_bytes(out, size)
            return 0
        made = self.random(size)
        if <size_t>len(made) != size:
            raise ValueError("too few random bytes")
        memcpy(out, bytes_of(made), size)
        return 0

    cdef int rotate(self, double now) except -1:
        """Replace the cookie key when it is old, and forget the one before."""
        if self.has_previous and now >= self.previous_until:
            wipe(self.previous_key, 32)
            self.has_previous = False
        if now - self.since < COOKIE_USED:
            return 0
        if now - self.since < COOKIE_VALID:
            memcpy(self.previous_key, self.cookie_key, 32)
            self.has_previous, self.previous_until = True, self.since + COOKIE_VALID
        self.fill(self.cookie_key, 32)
        self.since = now
        return 0

    cdef int write_cookie(
        self, unsigned char* out, const unsigned char* text, double now
    ) except -1:
        """Write a cookie with COOKIE_TEXT bytes."""
        cdef unsigned char[24] nonce
        self.rotate(now)
        self.fill(out, 16)
        nonce_of(nonce, b"COOKIE--", out, 16)
        box(out + 16, text, COOKIE_TEXT, nonce, self.cookie_key)
        return 0

    cdef bint read_cookie(
        self, unsigned char* text, const unsigned char* cookie, double now
    ) except -1:
        """Open a cookie. Returns False when its key is gone, or it is forged."""
        cdef unsigned char[24] nonce
        self.rotate(now)
        nonce_of(nonce, b"COOKIE--", cookie, 16)
        if unbox(text, cookie + 16, COOKIE - 16, nonce, self.cookie_key) == 0:
            return True
        if not self.has_previous:
            return False
        return unbox(text, cookie + 16, COOKIE - 16, nonce, self.previous_key) == 0


cdef void wipe_keys(unsigned char* key) noexcept:
    if not sodium_problem:
        wipe(key, 32)


cdef bint sodium_problem = bool(sodium.problem)


cdef class CurveServer(Mechanism):
    """CURVE on the side that has the long-term keys `keys`."""

    cdef CurveKeys keys
    cdef unsigned char[32] client  # C', the short-term key of the client
    cdef unsigned char[32] shared  # of C' and s', from INITIATE on
    cdef uint64_t received
    cdef bint greeted

    def __init__(self, CurveKeys keys not None, bytes kind not None, bytes identity not None=b""):
        Mechanism.__init__(self, kind, identity)
        self.keys, self.name, self.as_server, self.strict = keys, CURVE_NAME, True, True
        self.cost, self.longest = 2, HELLO

    def __dealloc__(self):
        wipe_keys(self.shared)

    cpdef bytes receive(self, bytes command, double now):
        cdef const unsigned char* data = <const unsigned char*>bytes_of(command)
        cdef size_t size = <size_t>size_of(command)
        if self.greeted:
            self.initiate(data, size, now)
            return b""
        self.greeted = True
        return self.welcome(data, size, now)

    cdef bytes welcome(self, const unsigned char* data, size_t size, double now):
        """Answer HELLO with WELCOME.

        RFC 26: "hello = %d5 "HELLO" version padding hello-client hello-nonce hello-box". The box
        holds 64 zeros, which proves that the client knows our public key.
        """
        cdef unsigned char[32] key
        cdef unsigned char[24] nonce
        cdef unsigned char[WELCOME_TEXT] text  # S', then the cookie
        cdef unsigned char[COOKIE_TEXT] cookie  # C', then s'
        cdef unsigned char[WELCOME] made
        cdef size_t n
        if size != HELLO or memcmp(data, b"\x05HELLO\x01\0", 8) != 0:
            return self.fail(MALFORMED)
        for n in range(8, HELLO_KEY):
            if data[n]:
                return self.fail(MALFORMED)
        memcpy(self.client, data + HELLO_KEY, 32)
        self.received = read_nonce(data + HELLO_NONCE)
        if self.received >= <uint64_t>-2:
            return self.fail(MALFORMED)
        if shared_key(key, self.client, self.keys.secret) != 0:
            return self.fail(MALFORMED)
        nonce_of(nonce, b"CurveZMQHELLO---", data + HELLO_NONCE, 8)
        if unbox(text, data + HELLO_BOX, HELLO - HELLO_BOX, nonce, key) != 0:
            wipe(key, 32)
            return self.fail(WRONG_KEY)
        for n in range(64):
            if text[n]:
                wipe(key, 32)
                return self.fail(MALFORMED)
        memcpy(cookie, self.client, 32)
        self.keys.fill(cookie + 32, 32)
        public_key(text, cookie + 32)
        self.keys.write_cookie(text + 32, cookie, now)
        wipe(cookie, COOKIE_TEXT)
        memcpy(made, b"\x07WELCOME", 8)
        self.keys.fill(made + 8, 16)
        nonce_of(nonce, b"WELCOME-", made + 8, 16)
        box(made + 24, text, WELCOME_TEXT, nonce, key)
        wipe(key, 32)
        self.longest = MAX_COMMAND
        return frame(PyBytes_FromStringAndSize(<char*>made, WELCOME))

    cdef int initiate(self, const unsigned char* data, size_t size, double now) except -1:
        """Check INITIATE: cookie, box and vouch. The client's key is known then."""
        cdef unsigned char[MAX_COMMAND] text
        cdef unsigned char[COOKIE_TEXT] cookie
        cdef str why
        if size < INITIATE or size > MAX_COMMAND or memcmp(data, b"\x08INITIATE", 9) != 0:
            self.fail(MALFORMED)
            return 0
        if read_nonce(data + INITIATE_NONCE) != self.received + 1:
            self.fail(MALFORMED)
            return 0
        # RFC 26: the cookie's key is the process's, so it is bound to this connection by C'.
        if not self.keys.read_cookie(cookie, data + INITIATE_COOKIE, now) or not same(
            cookie, self.client, 32
        ):
            self.fail(STALE_COOKIE)
            return 0
        why = self.open_initiate(text, data, size, cookie + 32)
        if why is None:
            self.received += 1
            self.credentials = (PyBytes_FromStringAndSize(<char*>text, 32),)
            if self.read_metadata(text + INITIATE_TEXT, size - INITIATE):
                self.stage = ASKING
            else:
                why = MALFORMED
        if why is not None:
            self.credentials = None
            self.fail(why)
        wipe(cookie, COOKIE_TEXT)
        wipe(text, size - INITIATE_BOX)
        return 0

    cdef str open_initiate(
        self, unsigned char* text, const unsigned char* data, size_t size,
        const unsigned char* short_secret,
    ):
        """Open the box of INITIATE and the vouch in it. Returns the reason of a failure, or None.

        RFC 26: "initiate-box" holds C, the vouch Box[C',S](C->S') and metadata. The vouch must name
        our key: else another server to which this client connects could pass it on to us.
        """
        cdef unsigned char[24] nonce
        cdef unsigned char[32] key
        cdef unsigned char[VOUCH_TEXT] vouch
        if shared_key(self.shared, self.client, short_secret) != 0:
            return MALFORMED
        nonce_of(nonce, b"CurveZMQINITIATE", data + INITIATE_NONCE, 8)
        if unbox(text, data + INITIATE_BOX, size - INITIATE_BOX, nonce, self.shared) != 0:
            return FORGED
        if same(text, self.client, 32):  # RFC 26: the short-term key is "unique to the connection"
            return MALFORMED
        if shared_key(key, text, short_secret) != 0:
            return MALFORMED
        nonce_of(nonce, b"VOUCH---", text + 32, 16)
        if unbox(vouch, text + 48, VOUCH_TEXT + 16, nonce, key) != 0:
            wipe(key, 32)
            return FORGED
        wipe(key, 32)
        if not same(vouch, self.client, 32) or not same(vouch + 32, self.keys.public, 32):
            return FORGED
        return None

    cpdef bytes finish(self):
        """Return READY. Its metadata say whether we read bundles, if the client does."""
        cdef unsigned char[24] nonce
        cdef bytes text, made
        cdef unsigned char* out
        text = self.own
        if self.bundles:
            text += bytes([len(BUNDLE_PROPERTY)]) + BUNDLE_PROPERTY + b"\0\0\0\x011"
        made = bytes(READY + len(text))
        out = <unsigned char*>bytes_of(made)
        memcpy(out, b"\x05READY", 6)
        write_nonce(out + 6, 1)
        nonce_of(nonce, b"CurveZMQREADY---", out + 6, 8)
        box(out + 14, <unsigned char*>bytes_of(text), <size_t>size_of(text), nonce, self.shared)
        self.boxes = Boxes()
        self.boxes.begin(
            self.shared, <unsigned char*>bytes_of(TO_CLIENT), <unsigned char*>bytes_of(TO_SERVER), 1,
            self.received,
        )
        self.boxes.bundles = self.bundles
        wipe(self.shared, 32)
        return frame(made)


cdef class CurveClient(Mechanism):
    """CURVE on the side that knows the server's public key `server`, and has a key pair.

    `first_nonce` is the nonce of HELLO.
    """

    cdef unsigned char[32] server, public, secret
    cdef unsigned char[32] short_public, short_secret, shared
    cdef uint64_t sent
    cdef object random
    cdef bint welcomed

    def __init__(
        self, bytes server not None, bytes public not None, bytes secret not None,
        bytes kind not None, bytes identity not None=b"", *, bint bundles=True, random=None,
        uint64_t first_nonce=1,
    ):
        if sodium.problem:
            raise RuntimeError(sodium.problem)
        if len(server) != 32 or len(public) != 32 or len(secret) != 32:
            raise ValueError("a key has 32 bytes")
        Mechanism.__init__(self, kind, identity)
        self.own = metadata(kind, identity, bundles)
        self.name, self.random = CURVE_NAME, random
        self.sent = first_nonce
        self.longest = WELCOME
        memcpy(self.server, bytes_of(server), 32)
        memcpy(self.public, bytes_of(public), 32)
        memcpy(self.secret, bytes_of(secret), 32)

    def __dealloc__(self):
        wipe_keys(self.secret)
        wipe_keys(self.short_secret)
        wipe_keys(self.shared)

    cdef int fill(self, unsigned char* out, size_t size) except -1:
        cdef bytes made
        if self.random is None:
            random_bytes(out, size)
            return 0
        made = self.random(size)
        memcpy(out, bytes_of(made), min(size, <size_t>len(made)))
        return 0

    cpdef bytes begin(self):
        """Return HELLO, whose box of 64 zeros proves that we know the server's key."""
        cdef bytes made = bytes(HELLO)
        cdef unsigned char* out = <unsigned char*>bytes_of(made)
        cdef unsigned char[64] zeros
        cdef unsigned char[24] nonce
        cdef unsigned char[32] key
        self.fill(self.short_secret, 32)
        public_key(self.short_public, self.short_secret)
        if shared_key(key, self.server, self.short_secret) != 0:
            return self.fail(WRONG_KEY)  # a key of low order
        memset(zeros, 0, 64)
        memcpy(out, b"\x05HELLO\x01\0", 8)
        memcpy(out + HELLO_KEY, self.short_public, 32)
        write_nonce(out + HELLO_NONCE, self.sent)
        nonce_of(nonce, b"CurveZMQHELLO---", out + HELLO_NONCE, 8)
        box(out + HELLO_BOX, zeros, 64, nonce, key)
        memcpy(self.shared, key, 32)  # WELCOME is in a box of the same keys
        wipe(key, 32)
        return frame(made)

    cpdef bytes receive(self, bytes command, double now):
        if command[:6] == b"\x05ERROR":
            return self.fail(refusal(command))
        if self.welcomed:
            return self.open_ready(command)
        self.welcomed = True
        return self.initiate(command)

    cdef bytes initiate(self, bytes command):
        """Answer WELCOME with INITIATE."""
        cdef const unsigned char* data = <const unsigned char*>bytes_of(command)
        cdef unsigned char[WELCOME_TEXT] text  # S', then the cookie
        cdef unsigned char[VOUCH_TEXT] vouch
        cdef unsigned char[24] nonce
        cdef unsigned char[32] key
        cdef bytes inner, made
        cdef unsigned char* out
        if size_of(command) != WELCOME or memcmp(data, b"\x07WELCOME", 8) != 0:
            return self.fail(MALFORMED)
        nonce_of(nonce, b"WELCOME-", data + 8, 16)
        if unbox(text, data + 24, WELCOME - 24, nonce, self.shared) != 0:
            return self.fail(WRONG_KEY)
        if shared_key(key, text, self.secret) != 0:
            return self.fail(MALFORMED)
        if shared_key(self.shared, text, self.short_secret) != 0:
            return self.fail(MALFORMED)
        inner = bytes(INITIATE_TEXT) + self.own
        out = <unsigned char*>bytes_of(inner)
        memcpy(out, self.public, 32)
        self.fill(out + 32, 16)
        nonce_of(nonce, b"VOUCH---", out + 32, 16)
        memcpy(vouch, self.short_public, 32)
        memcpy(vouch + 32, self.server, 32)
        box(out + 48, vouch, VOUCH_TEXT, nonce, key)
        wipe(key, 32)
        made = bytes(INITIATE + len(self.own))
        memcpy(bytes_of(made), b"\x08INITIATE", 9)
        memcpy(bytes_of(made) + INITIATE_COOKIE, text + 32, COOKIE)
        self.sent += 1
        write_nonce(<unsigned char*>bytes_of(made) + INITIATE_NONCE, self.sent)
        nonce_of(nonce, b"CurveZMQINITIATE", <unsigned char*>bytes_of(made) + INITIATE_NONCE, 8)
        box(
            <unsigned char*>bytes_of(made) + INITIATE_BOX, out, <size_t>size_of(inner), nonce,
            self.shared,
        )
        wipe(self.short_secret, 32)
        wipe(self.secret, 32)
        self.longest = MAX_COMMAND
        return frame(made)

    cdef bytes open_ready(self, bytes command):
        cdef const unsigned char* data = <const unsigned char*>bytes_of(command)
        cdef unsigned char[MAX_COMMAND] text
        cdef unsigned char[24] nonce
        cdef size_t size = <size_t>size_of(command)
        if size < READY or size > MAX_COMMAND or memcmp(data, b"\x05READY", 6) != 0:
            return self.fail(MALFORMED)
        nonce_of(nonce, b"CurveZMQREADY---", data + 6, 8)
        if unbox(text, data + 14, size - 14, nonce, self.shared) != 0:
            return self.fail(FORGED)
        if not self.read_metadata(text, size - READY):
            return self.fail(MALFORMED)
        self.boxes = Boxes()
        self.boxes.begin(
            self.shared, <unsigned char*>bytes_of(TO_SERVER), <unsigned char*>bytes_of(TO_CLIENT),
            self.sent, read_nonce(data + 6),
        )
        self.boxes.bundles = self.bundles
        wipe(self.shared, 32)
        self.stage = DONE
        return b""
