"""HTTP/1.1 (RFC 9110, RFC 9112) without input or output: bytes go in, requests come out; answers go in, bytes come out.

No socket, no clock, no thread. Each connection has one ``request.RequestParser`` and one ``response.ResponseWriter``.
"""
