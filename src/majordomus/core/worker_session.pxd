cimport cython

from majordomus.core.worker_link cimport WorkerLink
from majordomus.protocol cimport octets
from majordomus.protocol.mdp03 cimport parse


cdef class WorkerSession(WorkerLink):
    pass
