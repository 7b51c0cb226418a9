"""The loop of the engines whose connections wait elsewhere, each in a thread or a process of its own.

All that is left to do here is to accept, to listen to the master, and to keep watch.
"""

from __future__ import annotations

import select
import time

from stoker.connection import Service
from stoker.engines.base import TICK, Engine

_BUSY_TICK = 0.05  # seconds: how soon to look again while a stop or the door's opening is awaited


class AcceptLoop(Engine):
    """Accepts, and hands each connection to ``begin``."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.poll = select.poll()
        self.listening = False

    def turned(self) -> None:
        """Called once a turn, for what an engine has to look after."""

    def run(self) -> None:
        self.clock.now = time.monotonic()
        for fd in self.service.watched:
            self.poll.register(fd, select.POLLIN)
        self.listen(True)
        self.service.ready()
        while True:
            self.clock.now = self.row.turn = time.monotonic()
            ready = self.poll.poll((_BUSY_TICK if self.service.phase or not self.listening else TICK) * 1000)
            self.clock.now = self.row.turn = time.monotonic()
            fds = {fd for fd, _ in ready}
            for fd in fds:
                watched = self.service.watched.get(fd)
                if watched is not None:
                    watched()
            for listener in list(self.service.listeners):
                if listener.fileno() in fds:
                    self.take(listener)
            self.door.tick()
            self.turned()
            if not self.listening and self.service.listeners and self.door.open():
                self.listen(True)
            if self.service.phase and self.stopped():
                break
        self.door.close()

    def listen(self, on: bool) -> None:
        if on != self.listening:
            self.listening = on
            for listener in self.service.listeners:
                if on:
                    self.poll.register(listener.fileno(), select.POLLIN)
                else:
                    self.poll.unregister(listener.fileno())

    def forget(self, fd: int) -> None:
        self.poll.unregister(fd)
