# The C types of body.py, and what it has under `if not cython.compiled`.

cimport cython

from stoker.http.scan cimport chunk_size, line_end, lowered, token, trimmed, value

cdef enum:
    LINE = 0
    FIELDS = 1
    DATA = 2
    SIZE = 3
    CHUNK = 4
    CLOSE = 5
    TRAILERS = 6

cdef enum:
    BAD = -1
    WAIT = 0
    WHOLE = 1

cdef enum:
    HTAB = 9
    LF = 10
    CR = 13
    SP = 32
    COLON = 58
    UNDERSCORE = 95

cdef frozenset CONTROL, NOT_IN_TRAILERS
cdef Py_ssize_t chunk_line, chunk_excess


cdef class Limits:
    cdef readonly Py_ssize_t request_line, fields, field_size, head, body


cdef class Reader:
    cdef readonly Limits limits
    cdef bint refuse_underscores
    cdef bytes data
    cdef Py_ssize_t at, size, room, block, used, count, left, received, excess
    cdef bytearray tail
    cdef bint ripe
    cdef int phase
    cdef list section
    cdef readonly list dropped, trailers
    cdef readonly object error
    cdef readonly bint complete

    cpdef feed(self, bytes data)
    cpdef Py_ssize_t buffered(self) except -1
    cdef bint join(self) except -1
    cdef int refuse(self, int status, str reason) except -2
    cdef Py_ssize_t bound(self) except? -100
    cdef int too_long(self) except -2
    cdef int wait(self, Py_ssize_t start) except -2
    @cython.locals(raw="const unsigned char *", end=Py_ssize_t)
    cdef int judge(self, Py_ssize_t start, Py_ssize_t stop) except -2
    cdef int fault(self, Py_ssize_t start, Py_ssize_t stop, str reason) except -2
    @cython.locals(raw="const unsigned char *", byte=cython.uchar)
    cdef int bad_name(self, Py_ssize_t start, Py_ssize_t stop) except -2
    @cython.locals(
        raw="const unsigned char *", start=Py_ssize_t, stop=Py_ssize_t, end=Py_ssize_t, at=Py_ssize_t, colon=Py_ssize_t,
        used=Py_ssize_t, limits=Limits, section=list, special=frozenset, name=bytes, content=bytes,
    )
    cdef int field_lines(self) except -2
    @cython.locals(raw="const unsigned char *")
    cdef int empty_line(self, Py_ssize_t start) except -2
    cdef int control(self, bytes name, bytes content) except -2
    cdef void begin_body(self, Py_ssize_t length)
    cpdef bytes body(self)
    @cython.locals(raw="const unsigned char *", at=Py_ssize_t, data=bytes)
    cdef bytes take(self, Py_ssize_t count)
    cdef void finish_body(self)
    @cython.locals(pieces=list)
    cdef bytes chunks(self)
    @cython.locals(raw="const unsigned char *", at=Py_ssize_t)
    cdef int close_chunk(self) except -2
    @cython.locals(data=bytes, raw="const unsigned char *", at=Py_ssize_t, line=Py_ssize_t, size=Py_ssize_t)
    cdef int size_line(self) except -2
