# C types of readiness.py. The constants are C numbers here, so that an operation costs a comparison.

cimport cython

from stoker.connection cimport Clock, Connection, monotonic, recv_now, resume
from stoker.engines.accept cimport Door
from stoker.engines.base cimport Engine
from stoker.engines.timers cimport Timers

cdef int AWAY, BUSY, CALL, CHUNK, DONE, DRAIN, IDLE, RECV, SLEEP
cdef double INFINITY, TICK
cdef int ERR, HUP, IN, OUT, RDHUP, _OFF


cdef int TURN


cdef class Poller:
    cdef public bint edge
    cdef public list found

    cpdef add(self, int fd, int events)
    cpdef change(self, int fd, int events)
    cpdef remove(self, int fd)
    cpdef int collect(self, double timeout) except -1
    cpdef int fd_of(self, int index) except -1
    cpdef int bits_of(self, int index) except? -1


cdef class ReadinessLoop(Engine):
    cdef public Poller poller
    cdef public bint edge
    cdef public Timers timers
    cdef public list by_fd
    cdef public double write_timeout
    cdef public object ready
    cdef public object woken
    cdef public object finished
    cdef public object waker
    cdef public dict listening
    cdef public list again
    cdef public int bell
    cdef public bint rung
    cdef public long progress

    cpdef tick(self)
    cpdef double timeout(self) except? -1
    @cython.locals(count=int, index=int, fd=int, connection=Connection)
    cpdef bint turn(self, double timeout) except -1
    cpdef begin(self, Connection connection)
    cpdef event(self, Connection connection, int bits)
    cpdef receive(self, Connection connection)
    @cython.locals(ask=int, full=bint)
    cpdef advance(self, Connection connection, object value)
    cpdef bint settle(self, Connection connection) except -1
    cpdef park(self, Connection connection)
    cpdef stall(self, Connection connection)
    cpdef go_on(self, Connection connection)
    cpdef want(self, Connection connection, int events)
    cpdef begin_linger(self, Connection connection)
    cpdef linger(self, Connection connection)
    cpdef finish(self, Connection connection)
