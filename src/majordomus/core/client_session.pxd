cimport cython

from majordomus.core.client_calls cimport Call
from majordomus.core.client_flow cimport ClientFlow
from majordomus.protocol cimport octets
from majordomus.protocol.mdp03 cimport parse


cdef class ClientSession(ClientFlow):
    pass
