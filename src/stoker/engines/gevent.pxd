# C types of gevent.py.

from stoker.connection cimport Connection
from stoker.engines.base cimport Engine
from stoker.engines.timers cimport Timers

cdef double INFINITY, TICK


cdef class GeventEngine(Engine):
    cdef public object hub
    cdef public object loop
    cdef public object hub_switch
    cdef public object main
    cdef public Timers timers
    cdef public object bell
    cdef public object woken
    cdef public object finished
    cdef public bint patched
    cdef public double write_timeout
    cdef public dict watchers
    cdef public dict listening
    cdef public object events
    cdef public dict lives
    cdef public set tasks
    cdef public dict asleep
    cdef bint waiting
    cdef double planned
    cdef double given_up_at

    cpdef begin(self, Connection connection)
    cpdef ended(self, Connection connection)
    cpdef file(self, Connection connection, double when)
