"""The fixture of the tests of listeners."""

from tests.net.sockets import listen

__all__ = ["listen"]
