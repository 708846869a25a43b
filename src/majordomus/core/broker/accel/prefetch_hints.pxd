# The functions of prefetch_hints.py in C, for the compiled rules. prefetch_hints.py itself is not
# compiled.
#
# These two cimports point upwards, and only here and in prefetch.pxd: a macro follows the pointers
# of a struct, so the compiler has to know its layout. prefetch_hints.py needs Protocols alone.
from majordomus.core.broker.balancing.ring cimport RingNode
from majordomus.core.broker.state.services cimport Service


# MAJORDOMUS_FETCH_OBJECT asks for the first 104 bytes of an object, MAJORDOMUS_FETCH_WORKER for the
# first 120 and MAJORDOMUS_FETCH_BYTES for the first 56, wherever cache lines begin (objects begin at
# multiples of 16): the attributes that every request touches are declared first.
# MAJORDOMUS_FETCH_REQUEST and MAJORDOMUS_FETCH_PARTS are for links.pxd: the second asks for what
# loses a reference when a request is freed, and takes the type from another request.
#
# Macros rather than inline functions, because a type may be incomplete where this file is read. A
# macro reads what prefetch_hints.py says an object "must" have; None has no such fields.
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
    #define MAJORDOMUS_FETCH_WORKER(wanted) \
        (MAJORDOMUS_FETCH(wanted), MAJORDOMUS_FETCH((const char *)(wanted) + 56), \
         MAJORDOMUS_FETCH((const char *)(wanted) + 112))
    #define MAJORDOMUS_FETCH_BYTES(wanted) \
        (MAJORDOMUS_FETCH(wanted), MAJORDOMUS_FETCH((const char *)(wanted) + 48))
    #define MAJORDOMUS_ENTRY(table, at) MAJORDOMUS_FETCH(((PyListObject *)(table))->ob_item + (at))
    #define MAJORDOMUS_ENTRY_OBJECT(table, at) \
        MAJORDOMUS_FETCH_OBJECT(((PyListObject *)(table))->ob_item[at])
    #define MAJORDOMUS_SERVICE_NAME(service) MAJORDOMUS_FETCH_BYTES((service)->name)
    #define MAJORDOMUS_SERVICE_STRATEGY(service) MAJORDOMUS_FETCH_BYTES((service)->strategy)
    #define MAJORDOMUS_SERVICE_WORKER(service) MAJORDOMUS_FETCH_WORKER((service)->newest_worker)
    #define MAJORDOMUS_WORKER_PEER(service) MAJORDOMUS_FETCH_OBJECT((service)->newest_worker->peer)
    #define MAJORDOMUS_WORKER_ID(service) MAJORDOMUS_FETCH_BYTES((service)->newest_worker->id)
    #define MAJORDOMUS_WORKER_ORDER(service) \
        (MAJORDOMUS_FETCH((service)->newest_worker->order), \
         MAJORDOMUS_FETCH(&((PyListObject *)(service)->newest_worker->order)->ob_item))
    #define MAJORDOMUS_WORKER_ORDER_ITEMS(service) \
        MAJORDOMUS_FETCH(((PyListObject *)(service)->newest_worker->order)->ob_item)
    #define MAJORDOMUS_NODE_WORKER(node) MAJORDOMUS_FETCH_WORKER((node)->worker)
    #define MAJORDOMUS_NODE_PEER(node) MAJORDOMUS_FETCH_OBJECT((node)->worker->peer)
    #define MAJORDOMUS_NODE_ID(node) MAJORDOMUS_FETCH_BYTES((node)->worker->id)
    #define MAJORDOMUS_NODE_AFTER(node) MAJORDOMUS_FETCH_OBJECT((node)->after)
    #define MAJORDOMUS_FETCH_REQUEST(wanted) \
        (MAJORDOMUS_FETCH(wanted), MAJORDOMUS_FETCH((const char *)(wanted) + 64), \
         MAJORDOMUS_FETCH((const char *)(wanted) + 128), \
         MAJORDOMUS_FETCH((const char *)(wanted) + 192), \
         MAJORDOMUS_FETCH((const char *)(wanted) + 256), \
         MAJORDOMUS_FETCH((const char *)(wanted) + 320))
    #if defined(__GNUC__) || defined(__clang__)
    #define MAJORDOMUS_FETCH_PARTS(request, wanted) \
        do { \
            __typeof__(request) other = (__typeof__(request))(wanted); \
            if ((PyObject *)other != Py_None) { \
                MAJORDOMUS_FETCH(other->service); \
                MAJORDOMUS_FETCH(other->called); \
                MAJORDOMUS_FETCH(other->worker); \
            } \
        } while (0)
    #else
    #define MAJORDOMUS_FETCH_PARTS(request, wanted) ((void)(wanted))
    #endif
    #endif
    """
    void entry "MAJORDOMUS_ENTRY"(list table, Py_ssize_t at) noexcept
    void entry_object "MAJORDOMUS_ENTRY_OBJECT"(list table, Py_ssize_t at) noexcept
    void service_name "MAJORDOMUS_SERVICE_NAME"(Service service) noexcept
    void service_strategy "MAJORDOMUS_SERVICE_STRATEGY"(Service service) noexcept
    void service_worker "MAJORDOMUS_SERVICE_WORKER"(Service service) noexcept
    void worker_peer "MAJORDOMUS_WORKER_PEER"(Service service) noexcept
    void worker_id "MAJORDOMUS_WORKER_ID"(Service service) noexcept
    void worker_order "MAJORDOMUS_WORKER_ORDER"(Service service) noexcept
    void worker_order_items "MAJORDOMUS_WORKER_ORDER_ITEMS"(Service service) noexcept
    void node_worker "MAJORDOMUS_NODE_WORKER"(RingNode node) noexcept
    void node_peer "MAJORDOMUS_NODE_PEER"(RingNode node) noexcept
    void node_id "MAJORDOMUS_NODE_ID"(RingNode node) noexcept
    void node_after "MAJORDOMUS_NODE_AFTER"(RingNode node) noexcept


cdef enum:
    MANY = 500
    RING = 32
