# C types of timers.py.

cimport cython
from libc.math cimport ceil

from stoker.connection cimport Connection, monotonic

cdef double INFINITY, _NEAR, _FINE, _COARSE


cdef class Timers:
    cdef list _heap
    cdef dict _due
    cdef double _next

    @cython.locals(steps=double, step=double, filed=list)
    cpdef file(self, Connection connection, double when)
    cpdef double next(self)
    @cython.locals(step=double, connection=Connection)
    cpdef list due(self, double now)
