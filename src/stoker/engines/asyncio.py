"""asyncio, or uvloop: our own epoll object nested in the event loop.

An epoll object is a descriptor that is readable when it has events. So the loop watches one descriptor for all
connections, and each turn of ours serves them as engine ``epoll`` does: what asyncio would spend on a Protocol and a
Transport for each is not spent at all, and tasks run beside it on the same thread.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from _thread import get_ident

from stoker.connection import INFINITY, Service
from stoker.engines.epoll import EpollPoller
from stoker.engines.readiness import ReadinessLoop


class AsyncioEngine(ReadinessLoop):
    """``--engine asyncio``, ``--loop auto|asyncio|uvloop``."""

    def __init__(self, service: Service) -> None:
        poller = EpollPoller(edge=False)
        super().__init__(service, poller)
        self._descriptor = poller.fileno()
        self._timer: asyncio.TimerHandle | None = None
        self._due = INFINITY  # when it comes, in seconds of the clock
        self._soon = False
        self._thread = get_ident()

    def run(self) -> None:
        choice = self.service.config.loop
        if choice == "uvloop" or (choice == "auto" and importlib.util.find_spec("uvloop") is not None):
            loop = importlib.import_module("uvloop").new_event_loop()
        else:
            loop = asyncio.SelectorEventLoop()
        self.loop: asyncio.AbstractEventLoop = loop
        asyncio.set_event_loop(loop)
        try:
            self.start()
            for number in self.service.signals:  # uvloop takes the wakeup descriptor for itself, and asyncio may
                loop.add_signal_handler(number, self._on_signal, number)
            loop.add_reader(self._descriptor, self._on_events)
            loop.call_soon(self.service.ready)
            self._again()
            loop.run_forever()
        finally:
            loop.remove_reader(self._descriptor)
            self._finish_tasks()
            self.close()
            asyncio.set_event_loop(None)
            loop.close()

    def ring(self) -> None:
        """A handler's Task rings for each operation: on the loop's own thread that takes no system call."""
        if get_ident() != self._thread:
            super().ring()
        elif not self._soon:
            self._soon = True
            self.loop.call_soon(self._on_soon)

    def _on_signal(self, number: int) -> None:
        self.service.obey(bytes([number]))
        self._again()

    def _on_events(self) -> None:
        """Take a turn, then see to it that the next one comes in time."""
        if self.turn(0):
            self.loop.stop()
        else:
            self._again()

    def _again(self) -> None:
        timeout = self.timeout()
        if timeout <= 0:
            if not self._soon:
                self._soon = True
                self.loop.call_soon(self._on_soon)
            return
        # A timer that comes too early costs a turn; one cancelled at each event would cost a heap.
        when = self.clock.now + timeout
        if when < self._due - 0.001:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.loop.call_later(timeout, self._on_timer)
            self._due = when

    def _on_soon(self) -> None:
        self._soon = False
        self._on_events()

    def _on_timer(self) -> None:
        self._timer = None
        self._due = INFINITY
        self._on_events()

    def _finish_tasks(self) -> None:
        """Cancel what an application has left running, and let it come to its end."""
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
