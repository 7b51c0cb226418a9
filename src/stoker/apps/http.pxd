# C types of http.py.

cimport cython

from stoker.connection cimport Clock, Connection, Service, monotonic
from stoker.http.body cimport Limits
from stoker.http.request cimport RequestParser
from stoker.http.response cimport ResponseWriter

cdef Py_ssize_t HIGH
cdef int BUSY, FRESH, IDLE, RUNNING, STOPPING, _BURST, _WARM
cdef double FIRST_BYTE, _REST


cdef class Date:
    cdef double _until
    cdef bytes _text

    cpdef bytes now(self)


cdef class Exchange:
    cdef readonly bint dedicated
    cdef public Connection connection
    cdef public RequestParser parser
    cdef public ResponseWriter writer
    cdef public double arrived
    cdef public bint failed
    cdef public bint kept

    cpdef begin(self, object body)
    cpdef bint answer(self) except -1
    cpdef bint go_on(self) except -1
    cpdef run(self)
    cpdef end(self, str failure)
    cpdef close(self)


cdef class Site:
    cdef public object make_io
    cdef public Service service
    cdef public bint blocking, pool, calls
    cdef public object exchange
    cdef public object access
    cdef public Limits limits
    cdef public bint refuse_underscores
    cdef public double header_timeout, body_timeout, keep_alive, min_rate
    cdef public bytes server
    cdef public Date date
    cdef public Py_ssize_t warm
    cdef public set dropped

    cdef Exchange open(self, Connection connection)
    cpdef bint reads_first(self, RequestParser parser)
    cpdef bint keeps(self, RequestParser parser)
    cpdef drop(self, list names)


@cython.locals(now=double, stopping=bint)
cpdef bint expect(Connection connection, Site site, RequestParser parser, bint begun, bint served) except -1
cdef feed(Connection connection, Exchange exchange, bytes data, bint begun)
cdef bint cool(Connection connection, Site site, Exchange exchange) except -1
cdef release(Site site, Exchange exchange, str failure)
cdef bint closes(Connection connection, RequestParser parser, Exchange exchange) except -1
