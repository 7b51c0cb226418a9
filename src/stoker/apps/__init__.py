"""What runs on a connection: the HTTP handler and its WSGI application, or a raw TCP handler."""
