"""Sockets that a service manager opened for us: systemd's socket activation, sd_listen_fds(3)."""

import os
from collections.abc import MutableMapping

from stoker.net.descriptors import FIRST

_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


def systemd(environ: MutableMapping[str, str]) -> list[int]:
    """The descriptors that LISTEN_FDS announces, if LISTEN_PID says that they are meant for this process.

    The variables are taken out of `environ` in any case, so that no child believes that it is meant.
    """
    pid, count = environ.get("LISTEN_PID", ""), environ.get("LISTEN_FDS", "")
    for name in _VARIABLES:
        environ.pop(name, None)
    if not pid.isdecimal() or int(pid) != os.getpid() or not count.isdecimal():
        return []
    return list(range(FIRST, FIRST + int(count)))
