# The function of hints.py in C, for what is compiled. hints.py itself is not.
cdef extern from *:
    """
    #ifndef MAJORDOMUS_FETCH
    #if defined(__GNUC__) || defined(__clang__)
    #define MAJORDOMUS_FETCH(at) __builtin_prefetch((const void *)(at), 1, 3)
    #else
    #define MAJORDOMUS_FETCH(at) ((void)(at))
    #endif
    #endif
    """
    void _fetch "MAJORDOMUS_FETCH"(const void* at) noexcept


cdef enum:
    MANY = 500


# The first hundred bytes, wherever lines of a cache begin: there all that is looked at here has what
# every request touches.
cdef inline void fetch(object wanted) noexcept:
    _fetch(<void*>wanted)
    _fetch(<const char*><void*>wanted + 48)
    _fetch(<const char*><void*>wanted + 96)
