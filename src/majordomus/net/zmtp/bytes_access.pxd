# cython: language_level=3
"""Direct access to the memory of `bytes`: by macros, or by functions under the limited API."""

from cpython.object cimport PyObject

cdef extern from *:
    """
    #include <string.h>
    #ifdef Py_LIMITED_API
    #define MJ_BYTES(object) PyBytes_AsString(object)
    #define MJ_SIZE(object) PyBytes_Size(object)
    static int mj_grow(PyObject **bytes, Py_ssize_t size) {
        PyObject *larger = PyBytes_FromStringAndSize(NULL, size);
        if (larger != NULL)
            memcpy(PyBytes_AsString(larger), PyBytes_AsString(*bytes), PyBytes_Size(*bytes));
        Py_DECREF(*bytes);
        *bytes = larger;
        return larger == NULL ? -1 : 0;
    }
    #else
    #define MJ_BYTES(object) PyBytes_AS_STRING(object)
    #define MJ_SIZE(object) PyBytes_GET_SIZE(object)
    #define mj_grow _PyBytes_Resize
    #endif
    """
    char* bytes_of "MJ_BYTES"(object)
    Py_ssize_t size_of "MJ_SIZE"(object)
    int grow "mj_grow"(PyObject** bytes, Py_ssize_t size) except -1
