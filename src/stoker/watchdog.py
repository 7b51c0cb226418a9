"""``--request-timeout``: what happens when an application has had its time for a request.

The time is the application's own: what it waits for the client's bytes, or for the client to take the response, is not
counted. When it is over the log gets the request, where its time went and the stack of the guilty thread or greenlet.
Then `RequestTimeout` is thrown at it, by the means that the engine has:

==============================  ==================================================================================
``process``                     the client is told, and the child ends where it stands
inline, on the loop's thread    raised by the handler of SIGALRM: it interrupts what sleeps or waits in a system call
``greenlet``, ``gevent``        thrown into the greenlet by the hub, or raised as inline if that greenlet is running
a thread (engine or pool)       PyThreadState_SetAsyncExc: it comes when the thread next runs Python code
==============================  ==================================================================================

It is thrown again each second. If that does not help within ``--graceful-timeout``, the worker is replaced: it asks the
master for it, or, where its loop is stuck, ends itself. A loop that is stuck in C code which does not let go of the
interpreter can do nothing at all; faulthandler's watchdog, a thread that needs no interpreter, ends that process.

One timer (setitimer(2)) serves all requests: it is set for the earliest deadline and moved when it comes, so a request
costs two entries in a dictionary. Without ``--request-timeout`` this module is not imported.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import faulthandler
import importlib
import os
import signal
import sys
import time
import traceback
from types import FrameType
from typing import Any

from stoker import log
from stoker.connection import INFINITY
from stoker.errors import RequestTimeout

_AGAIN = 1.0  # seconds between two throws
_MARGIN = 3.0  # seconds that Python code may take to answer, before faulthandler's watchdog ends the process
_EXIT_STUCK = 1


class Call:
    """Application code that runs now.

    :ivar thread: the thread that runs it, as _thread.get_ident() has it
    :ivar greenlet: the greenlet, on engines that have them
    :ivar due: when something is to be done about it, in seconds of time.monotonic()
    :ivar thrown: an exception was set in another thread, and may not have come up yet
    """

    __slots__ = ("due", "exchange", "greenlet", "thread", "thrown")

    def __init__(self, exchange: Any, thread: int, greenlet: Any, due: float) -> None:
        self.exchange = exchange
        self.thread = thread
        self.greenlet = greenlet
        self.due = due
        self.thrown = False


class Watchdog:
    """Watches the application calls of one process. Made on its main thread, which handles the alarms.

    :param worker: the worker: ``config``, and ``tell`` to ask the master for a replacement
    """

    def __init__(self, worker: Any) -> None:
        config = worker.config
        self.worker = worker
        self.limit: float = config.request_timeout
        self.patience: float = config.graceful_timeout
        self.forks: bool = config.engine == "process"
        self.greens: bool = config.engine in ("greenlet", "gevent")
        patched: bool = config.engine == "gevent" and config.patch  # there a greenlet is all that a thread is
        self.calls: dict[Any, Call] = {}
        self.planned = INFINITY  # when the alarm comes
        self.ident: Any = (lambda: 0) if patched else _thread.get_ident
        self.main = self.ident()
        # An alarm may come while its own thread holds the lock. Greenlets share one thread and need none.
        self.lock: Any = contextlib.nullcontext() if patched else _thread.RLock()
        self.current: Any = importlib.import_module("greenlet").getcurrent if self.greens else _nothing
        signal.signal(signal.SIGALRM, self._alarm)

    # What the exchange calls, from the thread or greenlet that runs the application.

    def begin(self, exchange: Any) -> None:
        """Application code begins to run, or goes on. From now on RequestTimeout may be thrown at the caller."""
        now = time.monotonic()
        due = exchange.again if exchange.overdue else now + max(0.0, self.limit - exchange.application)
        call = Call(exchange, self.ident(), self.current(), due)
        with self.lock:
            self.calls[exchange] = call
            if due < self.planned:
                self._plan(now, due)

    def end(self, exchange: Any) -> None:
        """Application code has ended, or waits for the client: nothing is thrown any more. May be called again."""
        with self.lock:
            call = self.calls.pop(exchange, None)
            if call is not None and call.thrown:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(call.thread), None)

    # The alarm, on the main thread.

    def _alarm(self, number: int, frame: FrameType | None) -> None:
        """The earliest deadline has come, though perhaps its request has ended since."""
        here = False
        with self.lock:
            now = time.monotonic()
            for call in list(self.calls.values()):
                if call.due <= now:
                    here = self._strike(call, now, frame) or here
            self._plan(now, min((call.due for call in self.calls.values()), default=INFINITY))
        if here:
            raise RequestTimeout

    def _plan(self, now: float, when: float) -> None:
        """Set the alarm, and behind it the watchdog that needs no interpreter."""
        self.planned = when
        if when == INFINITY:
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()
            return
        left = max(0.001, when - now)
        signal.setitimer(signal.ITIMER_REAL, left)
        faulthandler.dump_traceback_later(left + _MARGIN + (0 if self.forks else self.patience), exit=True, file=2)

    def _strike(self, call: Call, now: float, frame: FrameType | None) -> bool:
        """Do something about a call that is overdue; True if the exception is to be raised right here."""
        exchange = call.exchange
        on_main = call.thread == self.main
        running = on_main and call.greenlet is self.current()
        call.due = exchange.again = now + _AGAIN
        if not exchange.overdue:
            exchange.overdue = now
            log.error(f"{self._account(call, now)}; it was here:\n{self._stack(call, frame if running else None)}")
            if self.forks:
                exchange.give_up()
                os._exit(0)  # all is said: the parent need not
        elif now >= exchange.overdue + self.patience:
            self._replace(call, running, frame)
        if running:
            return True
        if on_main:
            self.worker.engine.throw_soon(call.greenlet, RequestTimeout, lambda: self.calls.get(exchange) is call)
        else:
            call.thrown = True
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(call.thread), ctypes.py_object(RequestTimeout))
        return False

    def _replace(self, call: Call, running: bool, frame: FrameType | None) -> None:
        """The exception did not help."""
        what = call.exchange.what()
        if running:
            log.critical(
                f"{what} does not end, and holds the loop up: the worker ends itself, to be replaced\n"
                + self._stack(call, frame)
            )
            os._exit(_EXIT_STUCK)
        call.exchange.overdue = INFINITY  # asked for once
        log.error(f"{what} does not end: the worker asks to be replaced\n{self._stack(call, None)}")
        self.worker.tell(b"Q")

    def _account(self, call: Call, now: float) -> str:
        """Where a request's time went."""
        exchange = call.exchange
        own = exchange.application + now - exchange.mark
        writing = max(0.0, now - exchange.called - own - exchange.receiving)
        return (
            f"{exchange.what()} has had its {self.limit:g} s (--request-timeout) and is ended: {own:.1f} s in the "
            f"application, {exchange.receiving:.1f} s waiting for the body, {writing:.1f} s writing"
        )

    def _stack(self, call: Call, frame: FrameType | None) -> str:
        """The stack of the guilty one; ``frame`` is its innermost, if that is known."""
        if frame is None:
            if call.thread != self.main:
                frame = sys._current_frames().get(call.thread)
            elif call.greenlet is not None:
                frame = call.greenlet.gr_frame
        return "".join(traceback.format_stack(frame)).rstrip() if frame is not None else "(it has no stack)"


def _nothing() -> None:
    """No greenlets here: all calls are in the same."""
