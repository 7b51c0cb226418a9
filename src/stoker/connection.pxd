# C types of connection.py, and the system calls of the hot path. `stoker.plain` has their twins.

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetFromErrno
from cpython.long cimport PyLong_AsLong
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from libc cimport errno as c_errno

from stoker.stats cimport Row

cdef extern from "sys/socket.h" nogil:
    ssize_t c_recv "recv"(int fd, void *buffer, size_t size, int flags)
    ssize_t c_send "send"(int fd, const void *buffer, size_t size, int flags)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL

cdef extern from "time.h" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *now)
    int CLOCK_MONOTONIC

cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    PySendResult PyIter_Send(object generator, object value, PyObject **result)

cdef extern from *:
    """
    /* One receive buffer a module: what is received is copied into bytes at once, under the GIL. */
    static char stoker_chunk[65536];
    """
    char *stoker_chunk


cdef inline double monotonic() noexcept:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


cdef inline object recv_now(int fd):
    cdef ssize_t count
    while True:
        count = c_recv(fd, stoker_chunk, 65536, MSG_DONTWAIT)
        if count >= 0:
            return PyBytes_FromStringAndSize(stoker_chunk, count)
        if c_errno.errno == c_errno.EAGAIN:
            return None
        if c_errno.errno != c_errno.EINTR:
            PyErr_SetFromErrno(OSError)


cdef inline Py_ssize_t send_now(int fd, bytes data, Py_ssize_t offset) except -2:
    cdef ssize_t count
    while True:
        count = c_send(fd, PyBytes_AS_STRING(data) + offset, PyBytes_GET_SIZE(data) - offset, MSG_DONTWAIT | MSG_NOSIGNAL)
        if count >= 0:
            return count
        if c_errno.errno == c_errno.EAGAIN:
            return -1
        if c_errno.errno != c_errno.EINTR:
            PyErr_SetFromErrno(OSError)


cdef inline int resume(object generator, object value) except -1:
    cdef PyObject *result = NULL
    cdef PySendResult sent = PyIter_Send(generator, value, &result)
    cdef int ask
    if sent == PYGEN_NEXT:
        ask = PyLong_AsLong(<object>result)
        Py_XDECREF(result)
        return ask
    if sent == PYGEN_RETURN:
        Py_XDECREF(result)
        return 4
    return -1


cdef class Clock:
    cdef public double now


cdef class FileSlice:
    cdef public int fd
    cdef public object offset
    cdef public object count


cdef class Connection:
    cdef public int fd
    cdef public object peer
    cdef public object listener
    cdef public Clock clock
    cdef public double deadline
    cdef public object job
    cdef public Py_ssize_t low
    cdef public int rest
    cdef public double since
    cdef public bint wakeable
    cdef public bint linger
    cdef public bint gone
    cdef public str failure
    cdef public Py_ssize_t size
    cdef public Py_ssize_t sent
    cdef public bint sending
    cdef public list inbox
    cdef object _first
    cdef Py_ssize_t _offset
    cdef list _more
    cdef public object io
    cdef public object generator
    cdef public int ask
    cdef public int want
    cdef public double filed
    cdef public double stalled
    cdef public double progress
    cdef public bint readable
    cdef public bint ended
    cdef public bint woken
    cdef public object waker
    cdef object __weakref__

    cpdef write(self, bytes data)
    cpdef bint flush(self) except -1
    cpdef head(self)
    cpdef Py_ssize_t head_offset(self)
    cpdef took(self, bytes piece, Py_ssize_t count)
    cdef _next(self)


cdef class Service:
    cdef public object config
    cdef public Clock clock
    cdef public list listeners
    cdef public dict watched
    cdef public Row row
    cdef public int phase
    cdef public double end_at
    cdef public bytes full_answer
    cdef public object pool
    cdef public Py_ssize_t cap
    cdef public long quota
    cdef public tuple signals
    cdef public object handler

    cpdef count_request(self)
