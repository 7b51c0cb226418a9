# C types of base.py.

cimport cython

from stoker.connection cimport Clock, Connection, Service
from stoker.engines.accept cimport Door
from stoker.stats cimport Row

cdef int CONNECTIONS, _ACCEPTS


cdef class Engine:
    cdef public Service service
    cdef public Clock clock
    cdef public Row row
    cdef public set connections
    cdef public Door door
    cdef public double _listeners_until
    cdef public double _fresh_until

    @cython.locals(connection=Connection)
    cpdef bint take(self, object listener) except -1
    cpdef begin(self, Connection connection)
    cpdef accepted(self, Connection connection)
    cpdef ended(self, Connection connection)
