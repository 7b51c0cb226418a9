# C types of readiness.py. The constants are C numbers here, so that an operation costs a comparison.

from stoker.connection cimport Clock, Connection, recv_now, resume
from stoker.engines.base cimport Engine
from stoker.engines.timers cimport Timers

cdef int AWAY, BUSY, CALL, CHUNK, DONE, DRAIN, IDLE, RECV, SLEEP
cdef double INFINITY, TICK
cdef int ERR, HUP, IN, OUT, RDHUP, _OFF


cdef class ReadinessLoop(Engine):
    cdef public object poller
    cdef public bint edge
    cdef public Timers timers
    cdef public dict by_fd
    cdef public double write_timeout
    cdef public object ready
    cdef public object woken
    cdef public object finished
    cdef public dict listening
    cdef public list again
    cdef public int bell
    cdef public bint rung
    cdef public object progress

    cpdef tick(self)
    cpdef double timeout(self) except? -1
    cpdef bint turn(self, double timeout) except -1
    cpdef event(self, Connection connection, int bits)
    cpdef receive(self, Connection connection)
    cpdef advance(self, Connection connection, object value)
    cpdef bint settle(self, Connection connection) except -1
    cpdef park(self, Connection connection)
    cpdef stall(self, Connection connection)
    cpdef go_on(self, Connection connection)
    cpdef want(self, Connection connection, int events)
