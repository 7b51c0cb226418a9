# C types of blocking.py, and the receive that blocks. `stoker.plain` has its twin.

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from libc cimport errno as c_errno

from stoker.connection cimport Clock, Connection, c_recv, monotonic, recv_now, resume

cdef int CALL, DONE, IDLE
cdef double INFINITY


cdef inline object recv_wait(int fd):
    # The buffer is on the stack, since other threads receive meanwhile; the kernel touches what it fills, no more.
    # Signals: their Python handlers run here or not at all, since nothing interpreted may run for a long time.
    cdef char chunk[65536]
    cdef ssize_t count
    cdef int error
    while True:
        PyErr_CheckSignals()
        with nogil:
            count = c_recv(fd, chunk, 65536, 0)
            error = c_errno.errno
        if count >= 0:
            return PyBytes_FromStringAndSize(chunk, count)
        if error == c_errno.EAGAIN:
            PyErr_CheckSignals()
            return None
        if error != c_errno.EINTR:
            c_errno.errno = error
            PyErr_SetFromErrno(OSError)


@cython.locals(clock=Clock, ask=cython.int)
cpdef serve(Connection connection, object io)
cpdef double watch_progress(Connection connection, double timeout) except -1
cpdef linger(Connection connection, object io)


cdef class PollIO:
    cdef public double write_timeout
    cdef public int bell
    cdef public object lock

    cpdef recv(self, Connection connection)
    cpdef room(self, Connection connection)
    cpdef sleep(self, Connection connection)
    cpdef call(self, Connection connection)
    cpdef bint _wait(self, Connection connection, int events, double seconds) except -1


cdef class SocketIO(PollIO):
    cdef public bint blocking
