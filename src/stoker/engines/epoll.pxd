# C types of epoll.py.

from stoker.engines.readiness cimport ReadinessLoop

cdef class EpollEngine(ReadinessLoop):
    pass
