# A function of deadline.py in C, for what is compiled. deadline.py itself is not.
from cpython.contextvars cimport PyContextVar_Get
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF


cdef inline object value(variable):
    cdef PyObject* found = NULL
    PyContextVar_Get(variable, NULL, &found)
    if found is NULL:
        raise LookupError(variable)
    result = <object>found
    Py_XDECREF(found)
    return result
