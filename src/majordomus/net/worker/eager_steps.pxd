# The functions of eager_steps.py in C, for compiled modules. eager_steps.py itself is not compiled.
from cpython.contextvars cimport PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit, PyContextVar_Set
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF


cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT

    PySendResult PyIter_Send(object work, object value, PyObject** given) except PYGEN_ERROR
    Py_ssize_t Py_REFCNT(object task)
    PyObject** PyObject_GET_WEAKREFS_LISTPTR(object task)


cdef inline Py_ssize_t references(object task):
    return Py_REFCNT(task) + (PyObject_GET_WEAKREFS_LISTPTR(task)[0] != NULL)


cdef inline object copy_context():
    return PyContext_CopyCurrent()


cdef inline tuple first_step(object context, object work, object variable, object value):
    cdef PyObject* given = NULL
    cdef PySendResult how
    PyContext_Enter(context)
    try:
        PyContextVar_Set(variable, value)
        how = PyIter_Send(work, None, &given)
    finally:
        PyContext_Exit(context)
    result = <object>given
    Py_DECREF(result)
    return how == PYGEN_RETURN, result
