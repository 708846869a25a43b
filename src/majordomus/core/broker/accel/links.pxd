# The functions of links.py in C, for the compiled rules. links.py itself is not compiled.
#
cimport majordomus.core.broker.accel.prefetch_hints as hints
# Upwards, for the layout alone (see prefetch_hints.pxd).
from majordomus.core.broker.balancing.ring cimport RingNode
from majordomus.core.broker.state.requests cimport AcceptedRequest
from majordomus.core.broker.state.workers cimport RegisteredWorker


# Each node of a ring is referred to by its two neighbours, before the move and after it. So no
# count of references changes, and none is touched. In the list of a worker a reference that is not
# needed any more moves to where one is: only what is left over is counted. `older` and `newer` of a
# request in no list are None. Macros, as in prefetch_hints.pxd.
cdef extern from *:
    """
    #ifndef MAJORDOMUS_MOVE_BEFORE
    #define MAJORDOMUS_MOVE_BEFORE(node, other) \
        do { \
            (node)->before->after = (node)->after; \
            (node)->after->before = (node)->before; \
            (node)->before = (other)->before; \
            (node)->after = (other); \
            (other)->before->after = (node); \
            (other)->before = (node); \
        } while (0)
    #define MAJORDOMUS_NONE(at) ((PyObject *)(at) == Py_None)
    #define MAJORDOMUS_HOLD(worker, request) \
        do { \
            if (MAJORDOMUS_NONE((worker)->newest)) { \
                Py_DECREF((PyObject *)(worker)->oldest); \
                (worker)->oldest = (request); \
            } else { \
                Py_DECREF((PyObject *)(worker)->newest->newer); \
                (worker)->newest->newer = (request); \
            } \
            Py_INCREF((PyObject *)(request)); \
            Py_DECREF((PyObject *)(request)->older); \
            (request)->older = (worker)->newest; \
            (worker)->newest = (request); \
            Py_INCREF((PyObject *)(request)); \
            (worker)->holding += 1; \
        } while (0)
    #define MAJORDOMUS_LET_GO(worker, request) \
        do { \
            if (MAJORDOMUS_NONE((request)->older)) \
                (worker)->oldest = (request)->newer; \
            else \
                (request)->older->newer = (request)->newer; \
            if (MAJORDOMUS_NONE((request)->newer)) \
                (worker)->newest = (request)->older; \
            else \
                (request)->newer->older = (request)->older; \
            Py_INCREF(Py_None); \
            Py_INCREF(Py_None); \
            (request)->older = (void *)Py_None; \
            (request)->newer = (void *)Py_None; \
            (worker)->holding -= 1; \
            Py_DECREF((PyObject *)(request)); /* its caller has one more reference */ \
            Py_DECREF((PyObject *)(request)); \
        } while (0)
    #define MAJORDOMUS_REPLACE(ring, at, request) \
        do { \
            PyObject **entries = ((PyListObject *)(ring))->ob_item; \
            Py_ssize_t place = (at), last = Py_SIZE(ring) - 1; \
            PyObject *replaced = entries[place]; \
            Py_INCREF((PyObject *)(request)); \
            entries[place] = (PyObject *)(request); \
            MAJORDOMUS_FETCH_REQUEST(entries[(place + 8) & last]); \
            MAJORDOMUS_FETCH_PARTS(request, entries[(place + 4) & last]); \
            Py_DECREF(replaced); \
        } while (0)
    #endif
    """
    void move_before "MAJORDOMUS_MOVE_BEFORE"(RingNode node, RingNode other) noexcept
    void hold "MAJORDOMUS_HOLD"(RegisteredWorker worker, AcceptedRequest request) noexcept
    void let_go "MAJORDOMUS_LET_GO"(RegisteredWorker worker, AcceptedRequest request) noexcept
    void replace "MAJORDOMUS_REPLACE"(list ring, Py_ssize_t at, AcceptedRequest request) noexcept
