# C types of wsgi.py.

cimport cython

from stoker.apps.http cimport Exchange, Site
from stoker.connection cimport Connection
from stoker.http.request cimport RequestParser
from stoker.http.response cimport ResponseWriter

cdef extern from "Python.h":
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1

cdef Py_ssize_t HIGH
cdef dict _KEYS
cdef int _ANSWER, _GO_ON, _RUN, _BUSY


cdef inline bint within(object context, WSGIExchange exchange, int which) except -1:
    PyContext_Enter(context)
    try:
        return exchange.step(which)
    finally:
        PyContext_Exit(context)


cdef class WSGISite(Site):
    cdef public object application
    cdef public bint threads, processes, inline
    cdef public str root_path
    cdef public object watch

    cpdef dict environ(self, Connection connection)


cdef class WSGIExchange(Exchange):
    cdef public WSGISite site
    cdef dict base
    cdef str script_name
    cdef list fields
    cdef dict template
    cdef bytes target
    cdef str method
    cdef int version
    cdef object starter
    cdef public bint continued
    cdef public bint open
    cdef object result
    cdef object iterator
    cdef object input
    cdef object refused
    cdef object errors
    cdef dict environ
    cdef object context
    cdef object status_line
    cdef object response_headers
    cdef object rate
    cdef public bint inside
    cdef public double overdue, again
    cdef public bint timed
    cdef public double called, mark
    cdef public double application, receiving

    @cython.locals(parser=RequestParser, environ=dict)
    cpdef begin(self, object body)
    @cython.locals(parser=RequestParser, template=dict)
    cdef _request_line(self)
    cpdef bint step(self, int which) except -1
    @cython.locals(writer=ResponseWriter, body=object)
    cdef bint _answer(self) except -1
    @cython.locals(writer=ResponseWriter)
    cdef bint _go_on(self) except -1
    cdef bint _run(self) except -1
    cdef str _path_info(self, bytes path)
    cdef dict _template(self)
    @cython.locals(site=WSGISite)
    cdef _enter(self)
    @cython.locals(site=WSGISite)
    cdef _leave(self)
    cdef _left(self)
    cdef _block(self, object block)
    cdef _head_checks(self)
    cdef bint _send_file(self, object wrapper) except -1
    cdef _ended(self)
    cdef _refuse(self, int status, str reason)
    cdef _drain(self)
    cdef bytes _piece(self)
    cdef _failed(self, object error)
    cdef _answer_error(self, int status, str reason)
    cdef _log_access(self)


cpdef str key_of(bytes name)
cdef _joined(object blocks)
