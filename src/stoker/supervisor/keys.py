"""Keys from the terminal: a key, then Enter.

Only while our process group is the foreground job of the terminal (tcgetpgrp(3)): a line that is typed while we are
in the background is meant for somebody else. The terminal is left as it is, never tcsetattr(3), so lines come whole
and edited.

The terminal is opened a second time rather than read through descriptor 0. Descriptor 0 shares its open file with the
shell, so O_NONBLOCK on it would change the shell's reads too; without O_NONBLOCK a read would hang as soon as another
process (a debugger in the application) took the line between our poll(2) and our read(2). SIGTTIN has to be blocked
in the process that reads (`supervisor.signals`): should we be put in the background in just that moment, read(2)
fails with EIO then, and does not stop us.
"""

import errno
import os

STANDARD_INPUT = 0
HELP = "keys, each followed by Enter: q graceful stop, r reload, s statistics, + one more worker, - one less, h help"


class Keys:
    """The terminal on standard input, if there is one.

    :ivar fd: what to poll for reading; -1 when there is nothing to read any more
    """

    def __init__(self) -> None:
        self.fd = -1
        if not os.isatty(STANDARD_INPUT):
            return
        try:
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            self.fd = os.open(os.ttyname(STANDARD_INPUT), flags)
        except OSError:  # a terminal of another user (su), or of another container: there is no name to open it by
            self.fd = -1

    def foreground(self) -> bool:
        """Whether what is typed now is meant for us. It is to be asked again about once a second."""
        if self.fd < 0:
            return False
        try:
            return os.tcgetpgrp(self.fd) == os.getpgrp()
        except OSError as error:
            if error.errno == errno.EIO:  # the terminal is gone
                self.close()
            return False  # ENOTTY: it is not the terminal that controls us

    def read(self) -> list[str]:
        """The keys of the lines that have been typed: the first character of each, "" for an empty line."""
        if not self.foreground():
            return []
        try:
            data = os.read(self.fd, 4096)
        except BlockingIOError:
            return []
        except OSError:  # EIO: in the background since a moment ago, or the terminal is gone; foreground() will tell
            return []
        if not data:  # end of file, Ctrl-D: whoever typed it wants no more keys
            self.close()
            return []
        lines = data.decode("utf-8", "replace").split("\n")
        return [line.strip()[:1] for line in (lines if lines[-1] else lines[:-1])]

    def close(self) -> None:
        """Take no more keys."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
