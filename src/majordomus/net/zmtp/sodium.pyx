# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The libsodium that pyzmq's libzmq uses, called by address. Every cryptographic operation of
CURVE is one of its functions.

A box of NaCl is HSalsa20 of the key and the first 16 bytes of the nonce, then Salsa20 and Poly1305
with the result and the other 8 bytes. The messages of one direction share the first 16 bytes, so
`subkey` computes HSalsa20 once for a connection, and `seal` and `unseal` do the rest. Their bytes
are those of `crypto_box`.

libsodium is quickest with 512 bytes of Salsa20 at a time. A remainder of more than one block is
therefore copied, and encrypted as a whole step.
"""

import ctypes

import zmq

from libc.stdint cimport uint64_t, uintptr_t
from libc.string cimport memcpy, memset

cdef enum:
    STEP = 512  # bytes of Salsa20 that libsodium computes at once
    BLOCK = 64
    STEP_BLOCKS = 8
    CHECK_SIZE = 256  # of crypto_onetimeauth_poly1305_state

ctypedef int (*Init)() noexcept nogil
ctypedef const char* (*Version)() noexcept nogil
ctypedef void (*Random)(void*, size_t) noexcept nogil
ctypedef int (*Base)(unsigned char*, const unsigned char*) noexcept nogil
ctypedef int (*Shared)(unsigned char*, const unsigned char*, const unsigned char*) noexcept nogil
ctypedef int (*BoxCall)(unsigned char*, const unsigned char*, unsigned long long, const unsigned char*, const unsigned char*) noexcept nogil
ctypedef int (*Hash)(unsigned char*, const unsigned char*, const unsigned char*, const unsigned char*) noexcept nogil
ctypedef int (*Stream)(unsigned char*, const unsigned char*, unsigned long long, const unsigned char*, uint64_t, const unsigned char*) noexcept nogil
ctypedef int (*Auth)(unsigned char*, const unsigned char*, unsigned long long, const unsigned char*) noexcept nogil
ctypedef int (*Verify)(const unsigned char*, const unsigned char*, unsigned long long, const unsigned char*) noexcept nogil
ctypedef int (*AuthInit)(void*, const unsigned char*) noexcept nogil
ctypedef int (*AuthUpdate)(void*, const unsigned char*, unsigned long long) noexcept nogil
ctypedef int (*AuthFinal)(void*, unsigned char*) noexcept nogil
ctypedef int (*Compare)(const void*, const void*, size_t) noexcept nogil
ctypedef void (*Zero)(void*, size_t) noexcept nogil

cdef Random _random
cdef Base _base
cdef Shared _shared
cdef BoxCall _box, _unbox
cdef Hash _hash
cdef Stream _stream
cdef Auth _auth
cdef Verify _verify
cdef AuthInit _auth_init
cdef AuthUpdate _auth_update
cdef AuthFinal _auth_final
cdef Compare _compare
cdef Zero _zero


# ── operations ────────────────────────────────────────────────────────────────────────────────────


cdef void random_bytes(unsigned char* out, size_t size) noexcept nogil:
    _random(out, size)


cdef void public_key(unsigned char* out, const unsigned char* secret) noexcept nogil:
    """Compute the public key of a secret one. It costs one multiplication."""
    _base(out, secret)


cdef int shared_key(
    unsigned char* out, const unsigned char* public, const unsigned char* secret
) noexcept nogil:
    """Compute the key of boxes between two peers. It costs one multiplication.

    Returns -1 for a public key of low order: the shared key of such a key is no secret.
    """
    return _shared(out, public, secret)


cdef void box(
    unsigned char* out, const unsigned char* text, size_t size, const unsigned char* nonce,
    const unsigned char* key,
) noexcept nogil:
    """Write the box of a text: MAC bytes more than it."""
    _box(out, text, size, nonce, key)


cdef int unbox(
    unsigned char* out, const unsigned char* boxed, size_t size, const unsigned char* nonce,
    const unsigned char* key,
) noexcept nogil:
    """Open a box of `size` bytes. Returns -1 when it is forged; `out` is then undefined."""
    return -1 if size < MAC else _unbox(out, boxed, size, nonce, key)


cdef void subkey(
    unsigned char* out, const unsigned char* prefix, const unsigned char* key
) noexcept nogil:
    """Compute the key of one direction from the 16 bytes that all its nonces begin with."""
    _hash(out, prefix, key, NULL)


cdef void seal(
    unsigned char* out, unsigned char flags, const unsigned char* text, size_t size,
    const unsigned char* nonce, const unsigned char* direction,
) noexcept nogil:
    """Write the box of a byte and a text: MAC + 1 + `size` bytes.

    `text` may be at `out` + MAC + 1.
    """
    cdef unsigned char[STEP] first  # the key of Poly1305, flags, text
    cdef size_t here = size if size < FIRST_PART else FIRST_PART
    memset(first, 0, KEY)
    first[KEY] = flags
    memcpy(first + KEY + 1, text, here)
    _stream(first, first, BLOCK if KEY + 1 + here <= BLOCK else STEP, nonce, 0, direction)
    memcpy(out + MAC, first + KEY, 1 + here)
    if size > here:
        _rest(out + MAC + 1 + here, text + here, size - here, nonce, direction)
    _auth(out, out + MAC, 1 + size, first)


cdef int unseal(
    unsigned char* flags, unsigned char* out, const unsigned char* sealed, size_t size,
    const unsigned char* nonce, const unsigned char* direction,
) noexcept nogil:
    """Open a box of `size` bytes: write its first byte and the text of `size` - MAC - 1 bytes.

    Returns -1 when it is forged, or too short; nothing is written then.
    """
    cdef unsigned char[STEP] first
    cdef size_t text, here
    if size < MAC + 1:
        return -1
    text = size - MAC - 1
    here = text if text < FIRST_PART else FIRST_PART
    memset(first, 0, KEY)
    memcpy(first + KEY, sealed + MAC, 1 + here)
    _stream(first, first, BLOCK if KEY + 1 + here <= BLOCK else STEP, nonce, 0, direction)
    if _verify(sealed, sealed + MAC, size - MAC, first) != 0:
        return -1
    flags[0] = first[KEY]
    memcpy(out, first + KEY + 1, here)
    if text > here:
        _rest(out + here, sealed + MAC + 1 + here, text - here, nonce, direction)
    return 0


cdef void _rest(
    unsigned char* out, const unsigned char* text, size_t size, const unsigned char* nonce,
    const unsigned char* direction,
) noexcept nogil:
    """Encrypt what follows the first step."""
    cdef unsigned char[STEP] last
    cdef size_t left = size % STEP, whole = size - left
    if whole:
        _stream(out, text, whole, nonce, STEP_BLOCKS, direction)
    if not left:
        return
    if left <= BLOCK:
        _stream(out + whole, text + whole, left, nonce, STEP_BLOCKS + whole // BLOCK, direction)
        return
    memcpy(last, text + whole, left)
    _stream(last, last, STEP, nonce, STEP_BLOCKS + whole // BLOCK, direction)
    memcpy(out + whole, last, left)


cdef size_t check_size() noexcept nogil:
    """Return the bytes of a state for the next three functions, on a boundary of 16."""
    return CHECK_SIZE


cdef unsigned char begin_check(
    void* state, const unsigned char* sealed, const unsigned char* nonce,
    const unsigned char* direction,
) noexcept nogil:
    """Begin to check a box that is not kept, by its MAC and first byte. Returns that byte.

    `end_check` decides whether it was forged.
    """
    cdef unsigned char[BLOCK] first
    memset(first, 0, KEY)
    first[KEY] = sealed[MAC]
    _stream(first, first, BLOCK, nonce, 0, direction)
    _auth_init(state, first)
    _auth_update(state, sealed + MAC, 1)
    return first[KEY]


cdef void check_more(void* state, const unsigned char* data, size_t size) noexcept nogil:
    _auth_update(state, data, size)


cdef int end_check(void* state, const unsigned char* mac) noexcept nogil:
    """Return 0, or -1 when the box was forged."""
    cdef unsigned char[MAC] computed
    _auth_final(state, computed)
    return _compare(computed, mac, MAC)


cdef bint same(const unsigned char* one, const unsigned char* other, size_t size) noexcept nogil:
    """Compare in constant time."""
    return _compare(one, other, size) == 0


cdef void wipe(void* data, size_t size) noexcept nogil:
    """Overwrite a secret."""
    _zero(data, size)


# ── at import ─────────────────────────────────────────────────────────────────────────────────────


cdef uintptr_t _address(object library, str name) except 0:
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value


def check(library):
    """Take the functions of a library, and try them. Returns what is wrong; "" when nothing is."""
    global _random, _base, _shared, _box, _unbox, _hash, _stream, _auth, _verify
    global _auth_init, _auth_update, _auth_final, _compare, _zero, version
    cdef Init init
    try:
        init = <Init>_address(library, "sodium_init")
        version = (<Version>_address(library, "sodium_version_string"))().decode()
        _random = <Random>_address(library, "randombytes_buf")
        _base = <Base>_address(library, "crypto_scalarmult_base")
        _shared = <Shared>_address(library, "crypto_box_beforenm")
        _box = <BoxCall>_address(library, "crypto_box_easy_afternm")
        _unbox = <BoxCall>_address(library, "crypto_box_open_easy_afternm")
        _hash = <Hash>_address(library, "crypto_core_hsalsa20")
        _stream = <Stream>_address(library, "crypto_stream_salsa20_xor_ic")
        _auth = <Auth>_address(library, "crypto_onetimeauth_poly1305")
        _verify = <Verify>_address(library, "crypto_onetimeauth_poly1305_verify")
        _auth_init = <AuthInit>_address(library, "crypto_onetimeauth_poly1305_init")
        _auth_update = <AuthUpdate>_address(library, "crypto_onetimeauth_poly1305_update")
        _auth_final = <AuthFinal>_address(library, "crypto_onetimeauth_poly1305_final")
        _compare = <Compare>_address(library, "sodium_memcmp")
        _zero = <Zero>_address(library, "sodium_memzero")
    except (AttributeError, OSError) as error:
        return f"pyzmq has no libsodium that can be called: {error}"
    if init() < 0:
        return "libsodium cannot be initialized"
    return "" if _passes() else f"libsodium {version} fails the test vectors of NaCl"


cdef bint _passes() except -1:
    """Try the test vector of "Cryptography in NaCl", and `seal` and `unseal` against `box`."""
    cdef bytes alice = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    cdef bytes bob = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
    cdef bytes nonce = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
    cdef bytes text = bytes.fromhex(
        "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e"
        "6c61296cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a"
        "838f21af1fde048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705"
    )
    cdef bytes boxed = bytes.fromhex(
        "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531"
        "a1186ac0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932"
        "164548e526ae90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14"
        "a6599b1f654cb45a74e355a5"
    )
    cdef unsigned char[KEY] key, direction
    cdef unsigned char[2048] long_text, wanted, made
    cdef unsigned char* n = nonce
    cdef unsigned char flags = 0, first
    cdef size_t size
    cdef void* state = <void*>((<uintptr_t>made + 15) & ~<uintptr_t>15)
    if shared_key(key, bob, alice) != 0:
        return False
    box(made, text, len(text), n, key)
    if (<bytes>made[: len(boxed)]) != boxed or unbox(wanted, boxed, len(boxed), n, key) != 0:
        return False
    subkey(direction, n, key)
    for size in range(2048):
        long_text[size] = <unsigned char>(size * 37 + 11)
    for size in (0, 1, 30, 31, 32, 100, 478, 479, 480, 543, 544, 600, 991, 1503, 2000):
        box(wanted, long_text, size + 1, n, key)
        seal(made, long_text[0], long_text + 1, size, n + 16, direction)
        if not same(wanted, made, MAC + 1 + size):
            return False
        if unseal(&flags, made, wanted, MAC + 1 + size, n + 16, direction) != 0:
            return False
        if flags != long_text[0] or not same(made, long_text + 1, size):
            return False
        first = begin_check(state, wanted, n + 16, direction)
        check_more(state, wanted + MAC + 1, size)
        if first != long_text[0] or end_check(state, wanted) != 0:
            return False
        wanted[MAC] ^= 1
        if unseal(&flags, made, wanted, MAC + 1 + size, n + 16, direction) == 0:
            return False
    memset(made, 0, KEY)
    return shared_key(wanted, made, alice) != 0  # a key of low order


version = ""
"""Of libsodium."""


def _open():
    try:
        return check(ctypes.CDLL(zmq.backend.cython._zmq.__file__))
    except (AttributeError, OSError) as error:
        return f"pyzmq has no libsodium that can be called: {error}"


problem = _open()
"""Why CURVE cannot be served by our own ZMTP; "" when it can."""
