"""A thread per connection: everything may block, the kernel schedules.

The main thread accepts and keeps watch; a connection is served by a thread of its own from its first byte to its last.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from typing import Any

from stoker import log
from stoker.connection import BUSY, Clock, Connection, Service, shutdown
from stoker.engines.base import TICK, Engine
from stoker.engines.blocking import SocketIO, serve


class ThreadEngine(Engine):
    """``--engine thread``."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.lock = threading.Lock()  # a descriptor must not be closed, and given again, between a look and a shutdown
        self.poll = select.poll()
        self.listening = False
        self.write_timeout: float = service.config.write_timeout
        self.door.make_room = self._make_room
        self._evict = self.door._end_an_idle_one

    def run(self) -> None:
        self.clock.now = time.monotonic()
        for fd in self.service.watched:
            self.poll.register(fd, select.POLLIN)
        self.listen(True)
        self.service.ready()
        while True:
            self.clock.now = self.row.turn = time.monotonic()
            ready = self.poll.poll((0.05 if self.service.phase or not self.listening else TICK) * 1000)
            self.clock.now = self.row.turn = time.monotonic()
            for fd, _ in ready:
                watched = self.service.watched.get(fd)
                if watched is not None:
                    watched()
            fds = {fd for fd, _ in ready}
            for listener in list(self.service.listeners):
                if listener.fileno() in fds:
                    self.take(listener)
            self.door.tick()
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

    def take(self, listener: Any) -> bool:
        for _ in range(64):
            connection = self.door.accept(listener)
            if connection is None:
                if not self.door.open():
                    self.listen(False)
                return self.door.empty
            connection.clock = Clock(self.clock.now)
            try:
                with self.lock:
                    self.accepted(connection)
                threading.Thread(
                    target=self.serve, args=(connection,), daemon=True, name=f"stoker-{connection.fd}"
                ).start()
            except RuntimeError:  # can't start new thread
                log.error("no new thread can be started: a connection is closed (--max-connections, ulimit -u)")
                with self.lock:
                    self.ended(connection)
        return False

    def serve(self, connection: Connection) -> None:
        """The life of one connection, on its thread."""
        io = SocketIO(connection, self.write_timeout)
        try:
            serve(connection, io)
        finally:
            with self.lock:
                self.ended(connection)
            io.close()

    def rouse(self) -> None:
        with self.lock:
            super().rouse()

    def _make_room(self) -> bool:
        with self.lock:
            return self._evict()

    def abort(self, reason: str) -> None:
        """A thread cannot be ended from outside; its socket can, and with the next receive or send it ends itself."""
        with self.lock:
            for connection in self.connections:
                connection.failure = connection.failure or reason
                connection.gone = True
                connection.rest = BUSY
                shutdown(connection.fd, socket.SHUT_RDWR)
        deadline = time.monotonic() + 1.0
        while self.connections and time.monotonic() < deadline:
            time.sleep(0.01)
        with self.lock:
            left = len(self.connections)
            self.connections.clear()
        if left:
            log.warning(f"{left} connection thread(s) did not end with their sockets: the worker ends without them")
