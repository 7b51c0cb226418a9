# C types of answers.py.

cimport cython

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcmp

from stoker.load.histogram cimport Histogram

cdef extern from "string.h" nogil:
    void *memmem(const void *hay, size_t size, const void *needle, size_t length)


cdef inline Py_ssize_t find(unsigned char *buffer, Py_ssize_t start, Py_ssize_t end, bytes what) noexcept:
    cdef unsigned char *found = <unsigned char *>memmem(
        buffer + start, end - start, PyBytes_AS_STRING(what), PyBytes_GET_SIZE(what)
    )
    return found - buffer if found != NULL else -1


cdef inline bint matches(unsigned char *buffer, Py_ssize_t start, Py_ssize_t end, bytes what) noexcept:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(what)
    return end - start >= size and memcmp(buffer + start, PyBytes_AS_STRING(what), size) == 0


cdef inline bint repeats(
    unsigned char *buffer, Py_ssize_t start, Py_ssize_t size, bytes what, Py_ssize_t offset
) noexcept:
    return memcmp(buffer + start, PyBytes_AS_STRING(what) + offset, size) == 0


cdef inline bytes saved(unsigned char *buffer, Py_ssize_t start, Py_ssize_t end):
    return PyBytes_FromStringAndSize(<char *>buffer + start, end - start)


cdef int HEAD, BODY, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILERS, UNTIL_CLOSE, ECHO
cdef int NOTHING, LENGTH, CHUNKED
cdef int BUFFER, LONGEST_HEAD, LONGEST_LINE
cdef bytes LINE_END, HEAD_END, BEGINNING


cdef class Link:
    cdef public int fd
    cdef public bint connected
    cdef public unsigned int mask
    cdef public bint flying
    cdef public Py_ssize_t offset
    cdef public Py_ssize_t limit
    cdef public int cut
    cdef public int pending
    cdef public long long begun
    cdef public long long due
    cdef public int first
    cdef public int state
    cdef public long long left
    cdef public long long length
    cdef public bint last
    cdef public int status
    cdef public bytes kept

    cpdef renew(self, int fd)


cdef class Answers:
    cdef unsigned char buffer[131072]
    cdef bytes echo
    cdef Py_ssize_t echoed
    cdef bint bodiless
    cdef int expect
    cdef long long expect_bytes
    cdef bytes memo
    cdef Py_ssize_t memo_size
    cdef int memo_status
    cdef int memo_framing
    cdef long long memo_length
    cdef bint memo_last
    cdef public long long moment
    cdef public long long answered_at
    cdef public long long sent
    cdef public long long requests
    cdef public long long wrong_status
    cdef public long long wrong_body
    cdef public str wrong_status_detail
    cdef public str wrong_body_detail
    cdef public Histogram histogram

    cdef Link new_link(self)
    @cython.locals(at=Py_ssize_t, take=Py_ssize_t, state=int)
    cdef read(self, Link link, Py_ssize_t end)
    @cython.locals(stop=Py_ssize_t)
    cdef Py_ssize_t head(self, Link link, Py_ssize_t at, Py_ssize_t end) except -1
    cdef unfinished(self, Link link, Py_ssize_t at, Py_ssize_t end)
    @cython.locals(stop=Py_ssize_t)
    cdef Py_ssize_t line(self, Link link, Py_ssize_t at, Py_ssize_t end) except -1
    @cython.locals(take=Py_ssize_t, place=Py_ssize_t)
    cdef Py_ssize_t echoing(self, Link link, Py_ssize_t at, Py_ssize_t end) except -1
    cdef answered(self, Link link)
    cdef bint ending(self, Link link) except -1
