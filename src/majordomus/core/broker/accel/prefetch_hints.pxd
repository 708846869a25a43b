# The functions of hints.py in C, for what is compiled. hints.py itself is not.
from majordomus.core.broker.balancing.strategy cimport RingNode
from majordomus.core.broker.state.services cimport Service


# MAJORDOMUS_FETCH_OBJECT asks for the first hundred bytes, wherever lines of a cache begin: there all
# that is looked at here has what every request touches. Macros, for a type may not be whole yet where
# this is read. What hints.py says "must" of is read, and None has no such fields.
cdef extern from *:
    """
    #ifndef MAJORDOMUS_FETCH
    #if defined(__GNUC__) || defined(__clang__)
    #define MAJORDOMUS_FETCH(at) __builtin_prefetch((const void *)(at), 1, 3)
    #else
    #define MAJORDOMUS_FETCH(at) ((void)(at))
    #endif
    #define MAJORDOMUS_FETCH_OBJECT(wanted) \
        (MAJORDOMUS_FETCH(wanted), MAJORDOMUS_FETCH((const char *)(wanted) + 48), \
         MAJORDOMUS_FETCH((const char *)(wanted) + 96))
    #define MAJORDOMUS_FETCH_BYTES(wanted) \
        (MAJORDOMUS_FETCH(wanted), MAJORDOMUS_FETCH((const char *)(wanted) + 48))
    #define MAJORDOMUS_ENTRY(table, at) MAJORDOMUS_FETCH(((PyListObject *)(table))->ob_item + (at))
    #define MAJORDOMUS_ENTERED(table, at) \
        MAJORDOMUS_FETCH_OBJECT(((PyListObject *)(table))->ob_item[at])
    #define MAJORDOMUS_NAME_OF(service) MAJORDOMUS_FETCH_BYTES((service)->name)
    #define MAJORDOMUS_WORKER_OF(service) MAJORDOMUS_FETCH_OBJECT((service)->only_worker)
    #define MAJORDOMUS_PEER_OF(service) MAJORDOMUS_FETCH_OBJECT((service)->only_worker->peer)
    #define MAJORDOMUS_ID_OF(service) MAJORDOMUS_FETCH_BYTES((service)->only_worker->id)
    #define MAJORDOMUS_WORKER_AT(place) MAJORDOMUS_FETCH_OBJECT((place)->worker)
    #define MAJORDOMUS_PEER_AT(place) MAJORDOMUS_FETCH_OBJECT((place)->worker->peer)
    #define MAJORDOMUS_ID_AT(place) MAJORDOMUS_FETCH_BYTES((place)->worker->id)
    #define MAJORDOMUS_PLACE_AFTER(place) MAJORDOMUS_FETCH_OBJECT((place)->after)
    #endif
    """
    void entry "MAJORDOMUS_ENTRY"(list table, Py_ssize_t at) noexcept
    void entered "MAJORDOMUS_ENTERED"(list table, Py_ssize_t at) noexcept
    void name_of "MAJORDOMUS_NAME_OF"(Service service) noexcept
    void worker_of "MAJORDOMUS_WORKER_OF"(Service service) noexcept
    void peer_of "MAJORDOMUS_PEER_OF"(Service service) noexcept
    void id_of "MAJORDOMUS_ID_OF"(Service service) noexcept
    void worker_at "MAJORDOMUS_WORKER_AT"(RingNode place) noexcept
    void peer_at "MAJORDOMUS_PEER_AT"(RingNode place) noexcept
    void id_at "MAJORDOMUS_ID_AT"(RingNode place) noexcept
    void place_after "MAJORDOMUS_PLACE_AFTER"(RingNode place) noexcept


cdef enum:
    MANY = 500
    RING = 32
