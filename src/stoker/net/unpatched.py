"""What gevent replaces in the standard library, as it was before: for the master.

With --preload and --engine gevent the application is imported in the master, and so the patching happens there, too.
The master must not notice. gevent's sockets, `poll`, `fork` and `waitpid` run on gevent's hub, which the master never
turns, and whose descriptors all workers would share. The names here are bound when this module is imported, which is
before anything is patched, and stay what they are.
"""

import _socket
from os import fork, waitpid
from select import POLLIN, poll
from signal import signal as set_handler
from socket import socket as Socket  # noqa: N812 - it is a class

__all__ = ["POLLIN", "Socket", "fork", "poll", "set_handler", "socketpair", "waitpid"]


def socketpair() -> tuple[Socket, Socket]:
    """Two connected unix sockets; the standard library's looks its class up when it is called. Raises OSError."""
    one, other = _socket.socketpair()
    return Socket(fileno=one.detach()), Socket(fileno=other.detach())
