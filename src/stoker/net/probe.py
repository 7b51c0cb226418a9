"""Whether io_uring(7) can be had here, and if not, who says so: found out by making a ring."""

from __future__ import annotations

import errno
from pathlib import Path

SYSCTL = Path("/proc/sys/kernel/io_uring_disabled")  # Documentation/admin-guide/sysctl/kernel.rst
_INSTEAD = "use --engine epoll"


def refusal(sysctl: Path = SYSCTL) -> str:
    """Why no ring can be made, and what to use instead; empty if one can. Nothing stays open."""
    try:
        from stoker.net.ring import Ring
    except ImportError as error:
        return f"{error}: {_INSTEAD}"
    try:
        Ring(8, 16, 8).close()
    except OSError as error:
        return f"{explain(error, sysctl)}: {_INSTEAD}"
    return ""


def explain(error: OSError, sysctl: Path = SYSCTL) -> str:
    """What the error of a ring that could not be made means."""
    name = errno.errorcode.get(error.errno or 0, str(error.errno))
    said = f"the kernel refuses io_uring ({error.strerror}, {name})"
    if error.errno == errno.ENOSYS:
        return f"{said}: it was built without io_uring, or a sandbox hides it"
    if error.errno in (errno.EPERM, errno.EACCES):
        try:
            value = int(sysctl.read_text("ascii"))
        except (OSError, ValueError):
            value = 0
        if value == 2:
            return f"{said}: kernel.io_uring_disabled is 2, which forbids it to everybody"
        if value == 1:
            return (
                f"{said}: kernel.io_uring_disabled is 1, which allows it to CAP_SYS_ADMIN and to the group of "
                "kernel.io_uring_group alone"
            )
        return f"{said}, though sysctl does not forbid it: a seccomp filter does, as containers have one by default"
    if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
        return f"{said}: it needs Linux 6.1 or newer"
    if error.errno == errno.ENOMEM:
        return f"{said}: not enough memory, or less may be locked than it takes (ulimit -l)"
    return said
