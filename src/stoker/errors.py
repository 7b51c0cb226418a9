"""The errors of Stoker: a small tree in which each class says whose fault it is."""


class StokerError(Exception):
    """The root of every error that Stoker raises on purpose."""


class ConfigError(StokerError):
    """An option, a variable or a configuration file is wrong.

    The message already says what is wrong, where it came from and what to do. A command ends with exit status 2.
    """


class BootError(StokerError):
    """The application cannot be imported, or a worker cannot start. A command ends with exit status 3."""


class ProtocolError(StokerError):
    """The client broke the protocol: the request is refused and the connection is closed.

    `status` is the HTTP status to answer with (RFC 9110 section 15); `reason` is a short text that goes to the client
    and into the log, so it never quotes what the client sent.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.status} {self.reason}"


class ApplicationError(StokerError):
    """The application handed over what may not go on the wire: the client gets a 500 or a closed connection."""


class RequestTimeout(BaseException):
    """The application had more than ``--request-timeout`` for a request: thrown at it while it runs.

    It is no Exception, so that an application's `except Exception` does not swallow it.
    """


class Ended(BaseException):
    """Raised in the process of a connection by the signal to end now, wherever it is: only the engine may catch it."""
