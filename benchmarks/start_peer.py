"""Starts the servers that have no command line of their own: `python -m benchmarks.start_peer NAME PORT`."""

import sys

from benchmarks.apps import asgi, wsgi

HOST = "127.0.0.1"


def bjoern(port):
    import bjoern as server

    server.run(wsgi, HOST, port)


def fastpysgi(port, app=wsgi):
    import fastpysgi as package

    package.server.tcp_nodelay = 1
    package.server.loglevel = package.LL_FATAL_ERROR
    package.server.init(app, HOST, port)
    package.server.run()


def freastal(port):
    import freastal as server

    server.serve(wsgi, host=HOST, port=port)


def freastal_asgi(port):
    import freastal as server

    server.serve_asgi(asgi, host=HOST, port=port)


def pywsgi(port):
    from gevent.pywsgi import WSGIServer

    WSGIServer((HOST, port), wsgi, log=None, error_log=None, backlog=1024).serve_forever()


STARTERS = {
    "bjoern": bjoern,
    "fastpysgi": fastpysgi,
    "fastpysgi-asgi": lambda port: fastpysgi(port, asgi),
    "freastal": freastal,
    "freastal-asgi": freastal_asgi,
    "gevent.pywsgi": pywsgi,
}

if __name__ == "__main__":
    STARTERS[sys.argv[1]](int(sys.argv[2]))
