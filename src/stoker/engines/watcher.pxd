# C types of watcher.py.

from stoker.connection cimport Connection, monotonic, recv_now
from stoker.engines.blocking cimport serve, watch_progress

cdef int IDLE, IN, OUT
cdef double INFINITY, _PROBE


cdef class WatcherIO:
    cdef public object engine
    cdef public Connection connection
    cdef object switch
    cdef object reader
    cdef bint reading
    cdef object writer
    cdef public object waiting
    cdef int events
    cdef public double until
    cdef public object greenlet

    cpdef recv(self, Connection connection)
    cdef bint _wait(self, int events, double until) except -1
    cpdef resume(self, object answer)
    cdef _read(self)
