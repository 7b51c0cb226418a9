# The C types of request.py, and what it has under `if not cython.compiled`.

cimport cython

from stoker.http.body cimport BAD, CR, FIELDS, LF, LINE, SP, WHOLE, Reader
from stoker.http.scan cimport path, query, starts, token

cdef enum:
    SLASH = 47
    QUESTION = 63

cdef int empty_lines
cdef Py_ssize_t memo_limit
cdef bytes GET, TOKENS, HTTP_1_0, HTTP_1_1
cdef dict METHODS


cdef class RequestParser(Reader):
    cdef readonly str method
    cdef readonly bytes target, path, query, host, scheme
    cdef readonly int minor
    cdef readonly list fields
    cdef readonly Py_ssize_t length
    cdef readonly bint keep_alive, expect_continue, started
    cdef int empty, memo_minor
    cdef bytes memo, authority
    cdef list memo_dropped
    cdef bytes named_host, named_length, named_codings, named_options, named_expectations

    cpdef int next(self) except -2
    @cython.locals(
        data=bytes, raw="const unsigned char *", start=Py_ssize_t, stop=Py_ssize_t, end=Py_ssize_t, begin=Py_ssize_t,
        mark=Py_ssize_t, after=Py_ssize_t, length=Py_ssize_t,
    )
    cdef int request_line(self) except -2
    @cython.locals(name=bytes)
    cdef take_method(self, Py_ssize_t start, Py_ssize_t stop)
    cdef take_target(self, Py_ssize_t begin, Py_ssize_t mark, Py_ssize_t after)
    @cython.locals(raw="const unsigned char *", answer=int)
    cdef int odd_version(self, Py_ssize_t start, Py_ssize_t stop) except -2
    cdef bint odd_target(self) except -1
    @cython.locals(raw="const unsigned char *", memo=bytes, used=Py_ssize_t)
    cdef bint recall(self) except -1
    @cython.locals(raw="const unsigned char *")
    cdef void remember(self)
    cdef void begin_request(self)
    cdef int control(self, bytes name, bytes content) except -2
    @cython.locals(host=bytes)
    cdef bint settle(self) except -1
    cdef bint connection_options(self, bytes value) except -1
    cdef bint transfer_codings(self, bytes value) except -1
    cdef bint content_length(self, bytes value) except -1
    cdef bint expectations(self, bytes value) except -1


cdef bytes _listed(bytes former, bytes value)
