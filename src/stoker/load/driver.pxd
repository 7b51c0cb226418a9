# C types of driver.py.

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc cimport errno as c_errno
from libc.string cimport memcpy

from stoker.load.answers cimport Answers, Link

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1

cdef extern from "unistd.h" nogil:
    int c_close "close"(int fd)

cdef extern from "time.h" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int which, timespec *result)
    int CLOCK_MONOTONIC

cdef extern from "sys/socket.h" nogil:
    struct sockaddr:
        pass
    int c_socket "socket"(int family, int kind, int protocol)
    int c_connect "connect"(int fd, const sockaddr *address, unsigned int size)
    int c_bind "bind"(int fd, const sockaddr *address, unsigned int size)
    int c_setsockopt "setsockopt"(int fd, int level, int name, const void *value, unsigned int size)
    ssize_t c_recv "recv"(int fd, void *buffer, size_t size, int flags)
    ssize_t c_send "send"(int fd, const void *buffer, size_t size, int flags)
    int MSG_DONTWAIT, MSG_NOSIGNAL, SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC

cdef extern from "netinet/in.h" nogil:
    int IPPROTO_IP, IPPROTO_TCP, IP_BIND_ADDRESS_NO_PORT

cdef extern from "netinet/tcp.h" nogil:
    int TCP_NODELAY

cdef extern from "poll.h" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int c_ppoll "ppoll"(pollfd *fds, unsigned long count, const timespec *timeout, const void *mask)
    int POLLIN

cdef extern from "sys/epoll.h" nogil:
    ctypedef union epoll_data_t:
        int fd
    struct epoll_event:
        unsigned int events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int poller, int operation, int fd, epoll_event *event)
    int c_epoll_wait "epoll_wait"(int poller, epoll_event *events, int most, int milliseconds)
    int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD

cdef extern from "sys/prctl.h" nogil:
    int prctl(int option, unsigned long value)
    int PR_SET_TIMERSLACK, PR_GET_TIMERSLACK


cdef inline long long now() noexcept nogil:
    cdef timespec result
    clock_gettime(CLOCK_MONOTONIC, &result)
    return <long long>result.tv_sec * 1000000000 + result.tv_nsec


cdef inline long long whole(double number) noexcept nogil:
    return <long long>number


cdef inline int dial(int family, bytes remote, object local) except? -100000:
    cdef int one = 1
    cdef int failure = 0
    cdef int fd = c_socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if fd < 0:
        return -c_errno.errno
    c_setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(int))
    if local is not None:
        c_setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(int))
        if c_bind(fd, <const sockaddr *>PyBytes_AS_STRING(local), <unsigned int>PyBytes_GET_SIZE(local)) < 0:
            failure = c_errno.errno
    if not failure and c_connect(fd, <const sockaddr *>PyBytes_AS_STRING(remote), <unsigned int>PyBytes_GET_SIZE(remote)) < 0:
        failure = c_errno.errno
    if failure and failure != c_errno.EINPROGRESS:
        c_close(fd)
        return -failure
    return fd


cdef inline void hang_up(int fd) noexcept nogil:
    c_close(fd)


cdef inline Py_ssize_t receive(int fd, unsigned char *buffer, Py_ssize_t offset, Py_ssize_t size) noexcept nogil:
    cdef ssize_t count = c_recv(fd, buffer + offset, size - offset, MSG_DONTWAIT)
    return count if count >= 0 else -c_errno.errno


cdef inline Py_ssize_t transmit(int fd, bytes data, Py_ssize_t start, Py_ssize_t end) noexcept:
    cdef ssize_t count = c_send(fd, PyBytes_AS_STRING(data) + start, end - start, MSG_DONTWAIT | MSG_NOSIGNAL)
    return count if count >= 0 else -c_errno.errno


cdef inline void restore(unsigned char *buffer, bytes data) noexcept:
    memcpy(buffer, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


cdef inline int new_poller() except -1:
    cdef int poller = epoll_create1(EPOLL_CLOEXEC)
    if poller < 0:
        raise OSError(c_errno.errno, "epoll_create1 failed")
    return poller


cdef inline void end_poller(int poller) noexcept nogil:
    c_close(poller)


cdef inline int watch(int poller, int fd, unsigned int mask, bint known) except -1:
    cdef epoll_event event
    event.events = mask
    event.data.fd = fd
    if epoll_ctl(poller, EPOLL_CTL_MOD if known else EPOLL_CTL_ADD, fd, &event) < 0:
        raise OSError(c_errno.errno, "epoll_ctl failed")
    return 0


cdef inline int wait(int poller, epoll_event *events, int milliseconds) except -1:
    cdef int count
    if milliseconds == 0:
        count = c_epoll_wait(poller, events, 512, 0)
    else:
        with nogil:
            count = c_epoll_wait(poller, events, 512, milliseconds)
    if count >= 0:
        return count
    if c_errno.errno == c_errno.EINTR:
        return 0
    raise OSError(c_errno.errno, "epoll_wait failed")


cdef inline void nap(int poller, long long nanoseconds) noexcept:
    cdef pollfd one
    cdef timespec rest
    one.fd = poller
    one.events = <short>POLLIN
    rest.tv_sec = nanoseconds // 1000000000
    rest.tv_nsec = nanoseconds % 1000000000
    with nogil:
        c_ppoll(&one, 1, &rest, NULL)


cdef inline int event_fd(epoll_event *events, int place) noexcept nogil:
    return events[place].data.fd


cdef inline unsigned int event_mask(epoll_event *events, int place) noexcept nogil:
    return events[place].events


cdef inline int check_signals() except -1:
    return PyErr_CheckSignals()


cdef inline int sharpen(int slack) noexcept nogil:
    cdef int before = prctl(PR_GET_TIMERSLACK, 0)
    prctl(PR_SET_TIMERSLACK, slack)
    return before


cdef unsigned int IN, OUT
cdef int EAGAIN, ROOM
cdef long long REST, LATE, LOOK


cdef class Driver(Answers):
    cdef public bint spin
    cdef epoll_event events[512]
    cdef bytes batch
    cdef int pipeline
    cdef Py_ssize_t size
    cdef int family
    cdef object remote
    cdef list sources
    cdef bint close
    cdef double interval
    cdef long long duration
    cdef long long quota
    cdef long long warm_up
    cdef long long timeout
    cdef list everyone
    cdef list by_fd
    cdef object free
    cdef object resting
    cdef int poller
    cdef public long long origin
    cdef public long long counted
    cdef public long long end
    cdef long long mark
    cdef long long alarm
    cdef long long next_look
    cdef public bint stopping
    cdef bint reached
    cdef long long flying
    cdef public long long opened
    cdef public long long received
    cdef public long long late
    cdef public long long unsent
    cdef public long long warmed
    cdef public double cpu
    cdef public dict failures
    cdef public dict details

    @cython.locals(link=Link)
    cpdef adopt(self, int place, int fd)
    cdef enter(self, Link link)
    @cython.locals(link=Link, slack=int)
    cpdef drive(self, object cpu)
    @cython.locals(link=Link, count=int, place=int, mask="unsigned int")
    cdef turn(self, object cpu)
    @cython.locals(ahead="long long", due="long long", count=int)
    cdef int look_out(self) except -1
    @cython.locals(link=Link)
    cdef tend(self, object cpu)
    cdef begin_counting(self, object cpu)
    @cython.locals(due="long long")
    cpdef stop(self)
    @cython.locals(due="long long")
    cdef dispatch(self)
    cdef rest(self, Link link)
    @cython.locals(count="long long", fd=int)
    cdef begin(self, Link link, long long due)
    @cython.locals(count=Py_ssize_t, mask="unsigned int")
    cdef push(self, Link link)
    @cython.locals(kept=Py_ssize_t, count=Py_ssize_t)
    cdef readable(self, Link link)
    cdef ended(self, Link link, int failure)
    @cython.locals(over=bint)
    cdef completed(self, Link link)
    @cython.locals(flew=bint)
    cdef fail(self, Link link, str kind, str detail)
    cdef shut(self, Link link)
    @cython.locals(link=Link)
    cpdef list descriptors(self)
    @cython.locals(link=Link)
    cpdef release(self)
