# The C types of response.py.

cimport cython

from stoker.http.scan cimport token, value

cdef bytes CLOSE, KEEP_ALIVE, CHUNKED, NOTHING
cdef frozenset WATCHED
cdef object _status
cdef dict _STATUS_LINES


cdef class ResponseWriter:
    cdef bytes server, line, block
    cdef bint head_only, chunked, over, own_date, own_server, close
    cdef int minor
    cdef Py_ssize_t declared
    cdef public bint keep_alive
    cdef public int status  # of a refusal, too, which the application has no part in
    cdef readonly bint started, sent_head, excess, short, body_allowed
    cdef readonly Py_ssize_t length
    cdef public Py_ssize_t sent
    cdef list last_headers
    cdef Py_ssize_t last_length
    cdef bytes last_length_line, last_head, head_line, head_block, head_date, head_framing, head_connection

    cpdef begin(self, str method, int minor, bint keep_alive)
    cpdef start(self, object status, object headers)
    cdef status_line(self, object status)
    @cython.locals(name=bytes, content=bytes, lower=bytes, parts=list)
    cdef check_headers(self, object headers)
    cdef bint watched(self, bytes name, bytes content) except -1
    @cython.locals(connection=bytes, parts=list)
    cdef bytes assemble(self, bytes date, bytes framing)
    cdef bytes length_line(self, Py_ssize_t length)
    @cython.locals(block=bytes, length=Py_ssize_t, size=Py_ssize_t, head=bytes)
    cpdef bytes one(self, object body, bytes date)
    cpdef bytes head(self, bytes date)
    cdef must_be_started(self)
    cdef Py_ssize_t allowed(self, Py_ssize_t count) except -1
    @cython.locals(block=bytes, size=Py_ssize_t, count=Py_ssize_t)
    cpdef bytes frame(self, object data)
    cpdef tuple file(self, Py_ssize_t count)
    cpdef bytes end(self)


@cython.locals(encoded=bytes)
cdef bytes _encoded(object text, str what)
cdef bytes _block(object data)
