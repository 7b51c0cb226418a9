# C types of uring.py. The constants are C numbers here, so that a completion costs a few comparisons.

cimport cython

from stoker.connection cimport Connection, resume
from stoker.engines.base cimport Engine
from stoker.engines.readiness cimport ReadinessLoop
from stoker.net.ring cimport Ring

cdef int AWAY, CALL, DONE, DRAIN, IDLE, RECV, SLEEP
cdef double INFINITY
cdef int ERR, HUP, IN, OUT
cdef int MORE, BUFFERED
cdef int _RECEIVE, _SEND, _ROOM, _GONE, CANCEL, ACCEPT, POLL
cdef Py_ssize_t _READ_AHEAD


cdef class Line:
    cdef public int fd
    cdef public unsigned long long generation
    cdef public unsigned turn
    cdef public Connection connection
    cdef public bytes held
    cdef public Py_ssize_t ahead
    cdef public bint receiving
    cdef public bint stopping
    cdef public bint flying
    cdef public bint full
    cdef public bint room
    cdef public bint watched
    cdef public bint once
    cdef public bint ended
    cdef public bint calling

    cpdef unsigned long long tag(self, int kind)


cdef class UringEngine(ReadinessLoop):
    cdef public Ring kernel
    cdef public object polls
    cdef public object entry
    cdef public list lines
    cdef public list flights
    cdef public unsigned turns
    cdef public bint once
    cdef public bint alone
    cdef public dict accepts
    cdef public int leaving
    cdef public unsigned long long serial

    @cython.locals(kind=int, fd=int, line=Line, ring=Ring)
    cpdef list complete(self)
    cpdef received(self, Line line)
    cpdef keep(self, Line line)
    cpdef sent(self, Line line)
    cpdef transmit(self, Line line)
    cpdef arm(self, Line line)
    cpdef release(self, Line line)
