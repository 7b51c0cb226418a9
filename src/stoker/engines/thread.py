"""A thread per connection: everything may block, the kernel schedules.

The main thread accepts and keeps watch; a connection is served by a thread of its own from its first byte to its last.
"""

from __future__ import annotations

import socket
import threading
import time

from stoker import log
from stoker.connection import BUSY, Clock, Connection, Service, shutdown
from stoker.engines.acceptloop import AcceptLoop
from stoker.engines.blocking import SocketIO, serve


class ThreadEngine(AcceptLoop):
    """``--engine thread``."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.lock = threading.Lock()  # a descriptor must not be closed, and given again, between a look and a shutdown
        self.write_timeout: float = service.config.write_timeout
        self.door.make_room = self._make_room
        self._evict = self.door._end_an_idle_one

    def begin(self, connection: Connection) -> None:
        connection.clock = Clock(self.clock.now)
        with self.lock:
            self.accepted(connection)
        try:
            threading.Thread(target=self.serve, args=(connection,), daemon=True, name=f"stoker-{connection.fd}").start()
        except RuntimeError:  # can't start new thread
            self.door.say("no new thread can be started: a connection is closed (--max-connections, ulimit -u)")
            self.row.refused += 1
            with self.lock:
                self.ended(connection)

    def serve(self, connection: Connection) -> None:
        """The life of one connection, on its thread."""
        io = SocketIO(connection, self.write_timeout)
        try:
            serve(connection, io)
        finally:
            with self.lock:
                self.ended(connection)
            io.close()

    def rouse(self, fresh: bool = False) -> None:
        with self.lock:
            super().rouse(fresh)

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
