# C types of epoll.py, and the system calls that `stoker.plain` has the twins of.

from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from libc cimport errno as c_errno
from libc.math cimport ceil
from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc

from stoker.engines.readiness cimport Poller, ReadinessLoop

cdef extern from "sys/epoll.h" nogil:
    ctypedef union epoll_data_t:
        int fd
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int c_epoll_wait "epoll_wait"(int epfd, epoll_event *events, int most, int timeout)
    int c_epoll_ctl "epoll_ctl"(int epfd, int op, int fd, epoll_event *event)

cdef unsigned int _EDGE
cdef int _EVENTS, _ADD, _REMOVE, _CHANGE


cdef inline epoll_event *epoll_events(int most) except NULL:
    cdef epoll_event *events = <epoll_event *>malloc(most * sizeof(epoll_event))
    if events is NULL:
        raise MemoryError
    return events


cdef inline void epoll_free(epoll_event *events) noexcept:
    free(events)


cdef inline int epoll_look(object epoll, int epfd, epoll_event *events, int most, double timeout) except -1:
    cdef int count
    cdef int milliseconds = <int>ceil(timeout * 1000)
    if milliseconds:
        with nogil:
            count = c_epoll_wait(epfd, events, most, milliseconds)
    else:
        count = c_epoll_wait(epfd, events, most, 0)
    if count < 0:
        if c_errno.errno != c_errno.EINTR:
            PyErr_SetFromErrno(OSError)
        PyErr_CheckSignals()
        return 0
    return count


cdef inline int epoll_change(object epoll, int epfd, int op, int fd, unsigned int events) except -1:
    cdef epoll_event event
    event.events = events
    event.data.fd = fd
    if c_epoll_ctl(epfd, op, fd, &event) < 0:
        PyErr_SetFromErrno(OSError)
    return 0


cdef inline int event_fd(epoll_event *events, int index) noexcept:
    return events[index].data.fd


cdef inline int event_bits(epoll_event *events, int index) noexcept:
    return events[index].events


cdef class EpollPoller(Poller):
    cdef object _epoll
    cdef unsigned int _flags
    cdef int _fd
    cdef epoll_event *_events


cdef class EpollEngine(ReadinessLoop):
    pass
