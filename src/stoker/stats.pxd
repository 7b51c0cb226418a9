# C types of stats.py.

cdef extern from "Python.h":
    ctypedef struct Py_buffer:
        void *buf
    Py_buffer *PyMemoryView_GET_BUFFER(object view)


cdef inline double *address_of(object cells) except NULL:
    return <double *>PyMemoryView_GET_BUFFER(cells).buf


cdef class Row:
    cdef readonly object cells
    cdef readonly Py_ssize_t index
    cdef object counter
    cdef double *numbers

    cpdef put(self, int index, double value)
    cpdef add(self, int index, double value)
    cpdef long count(self) except -1
