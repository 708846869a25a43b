# cython: language_level=3
"""The functions of libsodium that CURVE needs. To be called only where `sodium.problem` is ""."""

cdef enum:
    KEY = 32
    MAC = 16
    FIRST_PART = 479  # bytes of a text that fit into the first step of the cipher, with its flags

cdef void random_bytes(unsigned char* out, size_t size) noexcept nogil
cdef void public_key(unsigned char* out, const unsigned char* secret) noexcept nogil
cdef int shared_key(unsigned char* out, const unsigned char* public, const unsigned char* secret) noexcept nogil
cdef void box(unsigned char* out, const unsigned char* text, size_t size, const unsigned char* nonce, const unsigned char* key) noexcept nogil
cdef int unbox(unsigned char* out, const unsigned char* boxed, size_t size, const unsigned char* nonce, const unsigned char* key) noexcept nogil
cdef void subkey(unsigned char* out, const unsigned char* prefix, const unsigned char* key) noexcept nogil
cdef void seal(unsigned char* out, unsigned char flags, const unsigned char* text, size_t size, const unsigned char* nonce, const unsigned char* direction) noexcept nogil
cdef int unseal(unsigned char* flags, unsigned char* out, const unsigned char* sealed, size_t size, const unsigned char* nonce, const unsigned char* direction) noexcept nogil
cdef unsigned char begin_check(void* state, const unsigned char* sealed, const unsigned char* nonce, const unsigned char* direction) noexcept nogil
cdef void check_more(void* state, const unsigned char* data, size_t size) noexcept nogil
cdef int end_check(void* state, const unsigned char* mac) noexcept nogil
cdef bint same(const unsigned char* one, const unsigned char* other, size_t size) noexcept nogil
cdef void wipe(void* data, size_t size) noexcept nogil
cdef size_t check_size() noexcept nogil
