# C types of timers.py.

from stoker.connection cimport Connection

cdef class Timers:
    cdef list _heap
    cdef Py_ssize_t _serial

    cpdef file(self, Connection connection, double when)
    cpdef double next(self)
    cpdef list due(self, double now)
