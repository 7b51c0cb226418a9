# C types of accept.py, and accept4(2), whose twin is in `stoker.plain`.

cimport cython
from cpython.exc cimport PyErr_SetFromErrno
from libc cimport errno as c_errno
from libc.stdint cimport uint16_t, uint32_t

from stoker.connection cimport Clock, Connection, Service

cdef extern from "Python.h":
    object PyUnicode_InternFromString(const char *text)

cdef extern from *:
    """
    #include <arpa/inet.h>
    #include <netinet/in.h>
    #include <sys/socket.h>

    /* accept4(2) of a stream socket; the family, and for IPv4 and IPv6 the host as text and the other three numbers. */
    static int stoker_accept(int listener, int *family, char *host, uint16_t *port, uint32_t *flow, uint32_t *scope)
    {
        struct sockaddr_storage peer;
        socklen_t size = sizeof peer;
        int fd = accept4(listener, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return fd;
        *family = peer.ss_family;
        if (peer.ss_family == AF_INET) {
            struct sockaddr_in *four = (struct sockaddr_in *)&peer;
            inet_ntop(AF_INET, &four->sin_addr, host, INET6_ADDRSTRLEN);
            *port = ntohs(four->sin_port);
        } else if (peer.ss_family == AF_INET6) {
            struct sockaddr_in6 *six = (struct sockaddr_in6 *)&peer;
            inet_ntop(AF_INET6, &six->sin6_addr, host, INET6_ADDRSTRLEN);
            *port = ntohs(six->sin6_port);
            *flow = ntohl(six->sin6_flowinfo);
            *scope = six->sin6_scope_id;
        }
        return fd;
    }
    """
    int stoker_accept(int listener, int *family, char *host, uint16_t *port, uint32_t *flow, uint32_t *scope)
    int AF_INET, AF_INET6, INET6_ADDRSTRLEN


cdef inline object accept_now(object listener):
    cdef int family = 0
    cdef char host[64]
    cdef uint16_t port = 0
    cdef uint32_t flow = 0
    cdef uint32_t scope = 0
    cdef int fd = stoker_accept(listener.fileno(), &family, host, &port, &flow, &scope)
    if fd < 0:
        if c_errno.errno == c_errno.EAGAIN:
            return None
        PyErr_SetFromErrno(OSError)
    if family == AF_INET or family == AF_INET6:
        text = PyUnicode_InternFromString(host)  # a thousand connections of one client hold one string
        return fd, ((text, port) if family == AF_INET else (text, port, flow, scope))
    return fd, unix_name(fd)


cdef inline object unix_name(int fd):
    """The peer's address of a unix socket, of which few have one."""
    import _socket

    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fd)
    try:
        return sock.getpeername()
    except OSError:
        return ""
    finally:
        sock.detach()


cdef Py_ssize_t _PARTING_MAX
cdef int ACCEPTED, REFUSED, STOPPING


cdef class Door:
    cdef public Service service
    cdef public set connections
    cdef public Clock clock
    cdef public Py_ssize_t cap
    cdef public object lowest_refused
    cdef public str policy
    cdef public Py_ssize_t per_address
    cdef public dict addresses
    cdef public bint empty
    cdef public double full_until, closed_until
    cdef double _delay
    cdef public object _victims, _parting
    cdef dict _said
    cdef public object make_room

    cpdef bint open(self)
    cpdef double opens_at(self)
    @cython.locals(fd=int)
    cpdef Connection accept(self, object listener)
    cpdef bint waits(self, object listener)
    cpdef tuple fetch(self, object listener)
    cpdef pause(self, object error)
    cpdef left(self, Connection connection)
    cpdef tick(self)
