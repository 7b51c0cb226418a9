# C types of base.py.

from stoker.connection cimport Clock, Connection

cdef class Engine:
    cdef public object service
    cdef public Clock clock
    cdef public object row
    cdef public set connections
    cdef public object door
    cdef public double _listeners_until
    cdef public double _fresh_until
