"""Signals as input of a loop: nothing happens when one arrives but that a descriptor becomes readable.

Python's C handler writes the number of a signal to a pipe (signal.set_wakeup_fd), the master's loop reads it: no Python
code runs at a bad moment, and none is lost between a look and a wait.

SIGTTIN and SIGTTOU need more. To the master they mean one worker more or less, when somebody sends them. But the
kernel sends them too, to every process of a background job of which any process reads from the terminal, or writes to
it under `stty tostop` (termios(3), tty_ioctl(4)); their default is to stop the process. A handler cannot tell the two
apart, for Python hands no siginfo_t over; siginfo's si_code can (sigaction(2): SI_KERNEL is above zero, what a
process sent is not). So both stay blocked, which also keeps the kernel from ever stopping us (a blocked SIGTTIN makes
read(2) fail with EIO), and are taken with sigtimedwait(2). A signalfd(2) on the same two is the bell that wakes the
loop; where there is none (no ctypes), the loop looks a few times a second.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from stoker.errors import BootError
from stoker.net.unpatched import set_handler

LOOK = 0.25  # seconds between two looks for SIGTTIN and SIGTTOU where there is no bell

_HANDLED = (
    signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD,
    signal.SIGCONT,
)  # fmt: skip
_JOB = (signal.SIGTTIN, signal.SIGTTOU)
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Interrupted(BaseException):
    """A signal that stops the server arrived while foreign code ran in the master (the import of --preload)."""


class Signals:
    """The signals of this process from now until `close`.

    :ivar bell: a descriptor that is readable while SIGTTIN or SIGTTOU waits to be taken; -1: there is none
    :raises BootError: in a thread other than the main one, where Python cannot set handlers
    """

    def __init__(self) -> None:
        self._kept: list[int] = []
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        except ValueError:
            os.close(self._reader)
            os.close(self._writer)
            raise BootError(
                "the server handles signals, so it must be started in the main thread of the process"
            ) from None
        # A mask is a thread's own. Should a program with threads call serve(), SIGTTIN goes to one that does not block
        # it, and with a handler it does not stop the process, but comes in like the rest.
        self._before = {number: set_handler(number, _nothing) for number in (*_HANDLED, *_JOB)}
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _JOB) - {*_HANDLED, *_JOB}
        # What a predecessor blocked for the time of execve(2), and what a careless parent left blocked.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        self.bell = _bell()

    def descriptors(self) -> list[int]:
        """What to poll for reading."""
        return [self._reader] if self.bell < 0 else [self._reader, self.bell]

    def take(self) -> list[int]:
        """The signals that have arrived since the last call; SIGTTIN and SIGTTOU only if a process sent them."""
        numbers, self._kept = self._kept, []
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._reader, 4096):
                numbers += data
        while (info := signal.sigtimedwait(_JOB, 0)) is not None:
            if info.si_code <= 0:
                numbers.append(info.si_signo)
        return numbers

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside, TERM, INT and QUIT raise Interrupted at once, and are there to `take` as well."""
        for number in _STOPS:
            set_handler(number, _interrupt)
        try:
            self._kept = self.take()
            for early in self._kept:
                if early in _STOPS:  # it came before the handlers were there
                    _interrupt(early, None)
            yield
        finally:
            for number in _STOPS:
                set_handler(number, _nothing)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Inside, no signal is delivered: between fork(2) and the child's `reset`, and for execve(2)."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def reset(self) -> None:
        """In a child right after fork: the default for every signal and the mask from before us.

        But SIGTTIN and SIGTTOU are ignored: a worker whose application reads from the terminal in the background
        gets an error from read(2), while the default would stop the worker, and all the others with it.
        """
        signal.set_wakeup_fd(-1)
        for number in _HANDLED:
            set_handler(number, signal.SIG_DFL)
        for number in _JOB:
            set_handler(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        self._close_descriptors()

    @property
    def mask(self) -> set[int]:
        """The signal mask from before us, which the programs that we start should have."""
        return {int(number) for number in self._mask}

    def close(self) -> None:
        """Give the process back the handlers and the mask that it had."""
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            set_handler(number, signal.SIG_DFL if handler is None else handler)
        while signal.sigtimedwait(_JOB, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        for fd in (self._reader, self._writer, self.bell):
            if fd >= 0:
                os.close(fd)


def _nothing(number: int, frame: FrameType | None) -> None:
    """Python writes to the wakeup descriptor only for a signal that has a handler."""


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(signal.Signals(number).name)


def _bell() -> int:
    """A signalfd(2) for SIGTTIN and SIGTTOU, never read: it is readable as long as one of them is pending."""
    try:
        import ctypes  # some builds of Python have none

        call = ctypes.CDLL(None, use_errno=True).signalfd
        word = ctypes.sizeof(ctypes.c_ulong) * 8
        mask = (ctypes.c_ulong * (1024 // word))()  # sigset_t of glibc and musl
        for number in _JOB:
            mask[(number - 1) // word] |= 1 << (number - 1) % word
        fd: int = call(
            -1, ctypes.byref(mask), os.O_NONBLOCK | os.O_CLOEXEC
        )  # SFD_NONBLOCK and SFD_CLOEXEC are the same
    except (ImportError, OSError, AttributeError):
        return -1
    return fd
