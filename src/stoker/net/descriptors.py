"""Descriptors: 0, 1 and 2 belong to the standard streams, and there should be as many as the system gives.

open(2) and socket(2) return the lowest free number. A program that is started with standard error closed would get a
socket as descriptor 2, and everything that it then says to "standard error" would go to a client. So the three are
filled first.
"""

import fcntl
import os
import resource
import sys

FIRST = 3  # the lowest descriptor that a socket may have


def guard() -> None:
    """Open /dev/null on each of the descriptors 0, 1 and 2 that is closed. Raises OSError if that cannot be done.

    Python has no `sys.stderr` where it was started without descriptor 2, so that whoever writes there would fail.
    """
    for standard, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(standard)
        except OSError:
            fill(standard)
        if getattr(sys, name) is None:
            mode = "w" if standard else "r"
            stream = open(standard, mode, buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def fill(standard: int) -> None:
    """Put /dev/null on descriptor `standard`, whatever it was; like the standard streams, children inherit it."""
    null = os.open(os.devnull, os.O_RDWR)
    if null == standard:
        os.set_inheritable(null, True)
    else:
        os.dup2(null, standard, inheritable=True)
        os.close(null)


def above_standard(fd: int) -> int:
    """The same open file on a descriptor of at least 3, closed on exec; a number below 3 is given back to /dev/null."""
    if fd >= FIRST:
        os.set_inheritable(fd, False)
        return fd
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST)
    fill(fd)
    return moved


def raise_limit() -> int:
    """Raise the soft limit of descriptors to the hard one (getrlimit(2), RLIMIT_NOFILE); return what is in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:  # Linux bounds it by fs.nr_open: a sandbox without that bound
        return soft
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # a sandbox forbids even this: the soft limit is what there is
            return soft
    return hard
