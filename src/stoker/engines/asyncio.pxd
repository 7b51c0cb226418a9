# C types of asyncio.py.

from stoker.engines.readiness cimport ReadinessLoop

cdef double INFINITY


cdef class AsyncioEngine(ReadinessLoop):
    cdef public object loop
    cdef int _descriptor
    cdef object _timer
    cdef double _due
    cdef bint _soon
    cdef unsigned long _thread

    cpdef _on_events(self)
    cpdef _again(self)
