"""The pid file: `--pid`.

A number in a file proves nothing: after a crash or in a new container it may be that of another process, or our own.
So the file is locked (flock(2)) for as long as its server lives; a file that nobody holds is stale. It is written
beside its place and renamed, so that a reader sees all of it or none.
"""

import contextlib
import fcntl
import os

from stoker.errors import BootError


class PidFileError(BootError):
    """The pid file belongs to a running server, or cannot be written; the message says which file and what to do."""


class PidFile:
    """The pid file of this process. The descriptor is closed on exec, and a forked child must close its copy."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd

    @classmethod
    def write(cls, path: str) -> "PidFile":
        """Write our pid to `path`. Raises PidFileError."""
        path = os.path.abspath(path)
        draft = f"{path}.{os.getpid()}"
        try:
            fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.write(fd, b"%d\n" % os.getpid())
                _place(draft, path)
            except BaseException:
                os.close(fd)
                os.unlink(draft)
                raise
        except OSError as error:
            raise PidFileError(f"the pid file {path} cannot be written: {error.strerror}") from error
        return cls(path, fd)

    def remove(self) -> None:
        """Remove the file if it is still ours, and let go of it."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(self.path), os.fstat(self.fd)):
                os.unlink(self.path)
        self.close()

    def close(self) -> None:
        """Close our copy of the descriptor; the file is held as long as there is one."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _place(draft: str, path: str) -> None:
    """Rename `draft` to `path`, unless a running server holds what is there."""
    while True:
        try:
            old = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            try:
                os.link(draft, path)  # fails if another server was quicker, where rename would replace its file
            except FileExistsError:
                continue
            os.unlink(draft)
            return
        try:
            try:
                fcntl.flock(old, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                number = os.read(old, 20).strip().decode("ascii", "replace")
                raise PidFileError(
                    f"a server is running with the pid file {path} (process {number}); stop it, or give another --pid"
                ) from None
            with contextlib.suppress(FileNotFoundError):
                # While we hold the lock nobody else replaces this file; but somebody may have before we got it.
                if os.path.samestat(os.stat(path), os.fstat(old)):
                    os.rename(draft, path)
                    return
        finally:
            os.close(old)
