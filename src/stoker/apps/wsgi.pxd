# C types of wsgi.py.

from stoker.connection cimport Connection
from stoker.http.request cimport RequestParser
from stoker.http.response cimport ResponseWriter

cdef Py_ssize_t HIGH
cdef dict _KEYS


cdef class WSGIExchange:
    cdef public Connection connection
    cdef public RequestParser parser
    cdef public ResponseWriter writer
    cdef public object site
    cdef dict base
    cdef str script_name
    cdef list fields
    cdef dict template
    cdef public bint continued
    cdef public bint failed
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
    cdef public double arrived, called, mark
    cdef public double application, receiving

    cdef str _path_info(self, bytes path)
    cdef dict _template(self)
    cdef _enter(self)
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
