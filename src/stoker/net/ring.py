"""One io_uring(7): submissions written to memory that the kernel shares, completions read from it.

A program that asks epoll(7) makes a system call for what is ready, and then one for each receive and each send. Here
receives and accepts are asked for once and complete again and again (multishot), sends are written to the queue, and
one io_uring_enter(2) a turn submits them all and waits for what comes next. What is received lies in buffers that the
kernel picks from a ring of them, so a connection that waits needs no buffer.

The ring belongs to the thread that made it (IORING_SETUP_SINGLE_ISSUER), and completions are worked out only when that
thread enters the kernel (IORING_SETUP_DEFER_TASKRUN), so nothing interrupts it. It has to be made after fork(2): a
child that submitted to its parent's ring would eat the parent's submissions. Needs Linux 6.1.
"""

from __future__ import annotations

import errno
import os
from typing import Any, Final

try:
    import cython
except ImportError:
    from stoker import nocython as cython

if not cython.compiled:
    raise ImportError("it needs Stoker's compiled modules, and these run interpreted", name=__name__)

from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cython.cimports.cpython.exc import PyErr_CheckSignals
from cython.cimports.stoker.net.ring import (
    stoker_now,
    stoker_ring_accept,
    stoker_ring_cancel,
    stoker_ring_close,
    stoker_ring_data,
    stoker_ring_enter,
    stoker_ring_next,
    stoker_ring_open,
    stoker_ring_poll,
    stoker_ring_ready,
    stoker_ring_recv,
    stoker_ring_recycle,
    stoker_ring_send,
    stoker_ring_submit,
)

ENTRIES: Final = 1024  # submissions; when they are used up, they are submitted without waiting
COMPLETIONS: Final = 8192  # the kernel keeps what does not fit (IORING_FEAT_NODROP), at a price
BUFFERS: Final = 256  # more than complete in one turn; without one, a receive ends with ENOBUFS and is asked for again
BUFFER: Final = 16384  # bytes

LONG: Final = 0.001  # seconds that a submission may wait for others

MORE: Final = 2  # in `flags`: the request that this completion belongs to goes on (IORING_CQE_F_MORE)
BUFFERED: Final = 1  # in `flags`: a buffer was used (IORING_CQE_F_BUFFER)

# io_uring_enter(2): nothing was lost, and the next one goes on.
_PASSING = (errno.ETIME, errno.EINTR, errno.EAGAIN, errno.EBUSY)


class Ring:
    """An io_uring with a ring of receive buffers.

    Each request carries a ``tag``, a number of 64 bits, which its completions bring back. ``next`` takes a completion
    and leaves it in the three variables below. Raises OSError, whose text names the call that the kernel refused.

    :ivar tag: of the request that has completed
    :ivar result: what the system call of the same name would have returned, or an errno, negative
    :ivar flags: MORE, BUFFERED
    """

    _ring: Any  # the structure of the .pxd

    def __init__(self, entries: int = ENTRIES, completions: int = COMPLETIONS, buffers: int = BUFFERS) -> None:
        failed = stoker_ring_open(cython.address(self._ring), entries, completions, buffers, BUFFER)
        if failed:
            step = self._ring.step.decode("ascii")
            raise OSError(failed, f"{step}: {os.strerror(failed)}")

    def close(self) -> None:
        """Give everything back. What has not completed is cancelled, some time after."""
        stoker_ring_close(cython.address(self._ring))

    def __dealloc__(self) -> None:
        stoker_ring_close(cython.address(self._ring))

    def fileno(self) -> int:
        """The descriptor; -1 when closed."""
        return int(self._ring.fd)

    def enter(self, timeout: float) -> None:
        """Submit what was asked for, and wait until something has completed, at most ``timeout`` seconds."""
        nanoseconds = cython.cast(cython.longlong, timeout * 1e9)
        with cython.nogil:
            failed = stoker_ring_enter(cython.address(self._ring), nanoseconds)
        if failed == errno.EINTR:
            PyErr_CheckSignals()  # raises what a handler of the application raises
        elif failed and failed not in _PASSING:
            raise OSError(failed, f"io_uring_enter: {os.strerror(failed)}")

    def submit(self) -> None:
        """Submit what was asked for, now."""
        failed = stoker_ring_submit(cython.address(self._ring))
        if failed and failed not in _PASSING:
            raise OSError(failed, f"io_uring_enter: {os.strerror(failed)}")

    def hurry(self, since: float) -> None:
        """Submit now what was asked for, if a turn that began at ``since`` (time.monotonic()) takes long."""
        if stoker_now() - since > LONG:
            self.submit()

    def recv(self, fd: int, tag: int, many: bool) -> None:
        """Receive once, or again and again until the end of the stream, an error or ``cancel``."""
        while not stoker_ring_recv(cython.address(self._ring), fd, tag, many):
            self.submit()

    def send(self, fd: int, tag: int, data: bytes, offset: int) -> None:
        """Send ``data`` from ``offset`` on; it may be taken in part. The caller keeps ``data`` until the completion."""
        start = PyBytes_AS_STRING(data) + offset
        while not stoker_ring_send(cython.address(self._ring), fd, tag, start, PyBytes_GET_SIZE(data) - offset):
            self.submit()

    def poll(self, fd: int, tag: int, events: int, many: bool) -> None:
        """Tell when one of ``events`` (poll(2)) is there, be it already; once, or at each change until ``cancel``.

        Not asked for, the kernel tells of ERR and HUP as poll(2) does, and unlike it of RDHUP, which stays: so a single
        poll of a socket whose peer has ended its side completes at once.
        """
        while not stoker_ring_poll(cython.address(self._ring), fd, tag, events, many):
            self.submit()

    def accept(self, fd: int, tag: int) -> None:
        """Accept again and again; the results are descriptors, non-blocking and closed on exec."""
        while not stoker_ring_accept(cython.address(self._ring), fd, tag):
            self.submit()

    def cancel(self, target: int, tag: int) -> None:
        """Cancel the request whose tag is ``target``: it completes with ECANCELED, or with what it had done already."""
        while not stoker_ring_cancel(cython.address(self._ring), target, tag):
            self.submit()

    def ready(self) -> int:
        """How many completions there are."""
        return int(stoker_ring_ready(cython.address(self._ring)))

    def next(self) -> None:
        """Take the oldest completion; there must be one."""
        completion = stoker_ring_next(cython.address(self._ring))
        self.tag = completion.user_data
        self.result = completion.res
        self.flags = completion.flags

    def data(self) -> bytes:
        """What was received by the completion taken last; its buffer is free again."""
        taken: bytes = PyBytes_FromStringAndSize(stoker_ring_data(cython.address(self._ring), self.flags), self.result)
        stoker_ring_recycle(cython.address(self._ring), self.flags >> 16)
        return taken

    def recycle(self) -> None:
        """Free the buffer of the completion taken last, unread."""
        stoker_ring_recycle(cython.address(self._ring), self.flags >> 16)
