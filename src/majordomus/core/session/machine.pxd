cdef class Session:
    cpdef object receive(self, list frames, double now)
    cpdef object tick(self, double now)
    cpdef double next_deadline(self) except? -1
    cpdef tuple take_effects(self)
