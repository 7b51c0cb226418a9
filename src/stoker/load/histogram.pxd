# C types of histogram.py.

cimport cython

cdef extern from *:
    """
    #define stoker_bits(number) (64 - __builtin_clzll((unsigned long long)(number)))
    """
    int stoker_bits(unsigned long long number) nogil


cdef inline int bits(long long number) noexcept nogil:
    return stoker_bits(<unsigned long long>number)

cdef long long EXACT, HALF, LARGEST, SLOTS
cdef int DIGITS


cdef class Histogram:
    cdef unsigned long long counts[33792]
    cdef public unsigned long long count
    cdef public double total
    cdef public long long highest

    @cython.locals(shift=int)
    cpdef record(self, long long value)
    @cython.locals(place=Py_ssize_t)
    cpdef clear(self)
    @cython.locals(place=Py_ssize_t)
    cpdef add(self, Histogram other)
