# The C types of scan.py, and in C what scan.py has under `if not cython.compiled`.
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM
from libc.string cimport memcmp

cdef bytes TOKENS, FIELDS, PATHS, QUERIES, DIGITS
cdef const unsigned char *token_table
cdef const unsigned char *field_table
cdef const unsigned char *path_table
cdef const unsigned char *query_table
cdef const unsigned char *digit_table
cdef Py_ssize_t huge

# Well-known field names, each at the place of its hash.
cdef enum:
    SLOTS = 512
    FACTOR = 43
    LONGEST = 32
cdef list names

cpdef Py_ssize_t token_loop(const unsigned char *data, Py_ssize_t start, Py_ssize_t end) noexcept
cpdef Py_ssize_t value_loop(const unsigned char *data, Py_ssize_t start, Py_ssize_t end) noexcept
cpdef Py_ssize_t path_loop(const unsigned char *data, Py_ssize_t start, Py_ssize_t end) noexcept
cpdef Py_ssize_t query_loop(const unsigned char *data, Py_ssize_t start, Py_ssize_t end) noexcept
cpdef Py_ssize_t line_end_loop(const unsigned char *data, Py_ssize_t start, Py_ssize_t end) noexcept
@cython.locals(size=Py_ssize_t, digit=cython.uchar)
cpdef Py_ssize_t chunk_size_loop(const unsigned char *data, Py_ssize_t start, Py_ssize_t end) noexcept


cdef inline Py_ssize_t token(const unsigned char *data, Py_ssize_t start, Py_ssize_t end) noexcept:
    return token_loop(data, start, end)


cdef inline Py_ssize_t value(const unsigned char *data, Py_ssize_t start, Py_ssize_t end) noexcept:
    return value_loop(data, start, end)


cdef inline Py_ssize_t path(const unsigned char *data, Py_ssize_t start, Py_ssize_t end) noexcept:
    return path_loop(data, start, end)


cdef inline Py_ssize_t query(const unsigned char *data, Py_ssize_t start, Py_ssize_t end) noexcept:
    return query_loop(data, start, end)


cdef inline Py_ssize_t line_end(const unsigned char *data, Py_ssize_t start, Py_ssize_t end) noexcept:
    return line_end_loop(data, start, end)


cdef inline Py_ssize_t chunk_size(const unsigned char *data, Py_ssize_t start, Py_ssize_t end) noexcept:
    return chunk_size_loop(data, start, end)


cdef inline bint starts(const unsigned char *data, Py_ssize_t at, Py_ssize_t end, bytes what) noexcept:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(what)
    return size <= end - at and memcmp(data + at, PyBytes_AS_STRING(what), size) == 0


cdef inline bytes trimmed(const unsigned char *data, Py_ssize_t start, Py_ssize_t end):
    while start < end and (data[start] == 32 or data[start] == 9):
        start += 1
    while start < end and (data[end - 1] == 32 or data[end - 1] == 9):
        end -= 1
    return PyBytes_FromStringAndSize(<const char *>data + start, end - start)


cdef inline bytes lowered(const unsigned char *data, Py_ssize_t start, Py_ssize_t end):
    cdef Py_ssize_t size = end - start
    cdef Py_ssize_t i
    cdef unsigned char byte
    cdef unsigned int mixed = 0
    cdef unsigned char text[LONGEST]
    if size > LONGEST:
        return PyBytes_FromStringAndSize(<const char *>data + start, size).lower()
    for i in range(size):
        byte = data[start + i]
        if 65 <= byte <= 90:
            byte |= 32
        text[i] = byte
        mixed = mixed * FACTOR + byte
    known = <object>PyList_GET_ITEM(names, (mixed ^ (mixed >> 15)) & (SLOTS - 1))
    if known is not None and PyBytes_GET_SIZE(known) == size and memcmp(PyBytes_AS_STRING(known), text, size) == 0:
        return <bytes>known
    return PyBytes_FromStringAndSize(<const char *>text, size)
