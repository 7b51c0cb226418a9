# C types of greenlet.py.

from stoker.connection cimport Connection, resume
from stoker.engines.readiness cimport ReadinessLoop

cdef int CALL, DONE, DRAIN, RECV, SLEEP
cdef double INFINITY


cdef class _Life:
    cdef GreenletEngine engine
    cdef public Connection connection
    cdef object handler
    cdef bint closing
    cdef object greenlet
    cdef object __weakref__

    cpdef send(self, object value)
    cpdef wait(self, int ask)
    cpdef _run(self, object value)


cdef class HubIO:
    cdef GreenletEngine engine

    cdef _wait(self, Connection connection, int ask)


cdef class GreenletEngine(ReadinessLoop):
    cdef public object hub
    cdef public object to_hub
    cdef public HubIO io
    cdef public set tasks
    cdef public object runnable
    cdef public object thrown
    cdef public list sleepers
    cdef Py_ssize_t _serial

    cpdef accepted(self, Connection connection)
    cpdef double timeout(self) except? -1
    cpdef bint turn(self, double timeout) except -1
