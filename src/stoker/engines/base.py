"""What every engine is: something that runs a service until it has stopped."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

from stoker.connection import (
    BUSY,
    ENDING,
    FIRST_BYTE,
    FRESH,
    INFINITY,
    RETIRING,
    RUNNING,
    STOPPING,
    Connection,
    Service,
    shutdown,
)
from stoker.engines.accept import Door
from stoker.stats import CONNECTIONS

# Interest and events; the values are those of poll(2) and epoll(7).
IN = 0x001
OUT = 0x004
ERR = 0x008
HUP = 0x010
RDHUP = 0x2000

_ACCEPTS = 64  # accepted in one turn; the next turn goes on
TICK = 1.0  # seconds: the longest that a loop sleeps, so that the master sees it turn
LATE = "the graceful timeout is over"
_LAST_CALL = 0.1  # seconds in which a handshake that had begun may still end after the listeners refuse new ones


class Engine:
    """The part that all engines share: the connections, the door, and the way to the end.

    A subclass implements ``run``, ``listen`` and ``begin``, and calls ``accepted``/``ended``.
    """

    lowest_refused: int | None = None  # the first descriptor that the engine cannot serve
    orphan_time = INFINITY  # seconds that may be left, at most, for what is under way when the master has died

    def __init__(self, service: Service) -> None:
        self.service = service
        self.clock = service.clock
        self.row = service.row
        self.connections: set[Connection] = set()
        self.door = Door(service, self.connections, service.cap, self.lowest_refused)
        self._listeners_until = 0.0
        self._fresh_until = INFINITY

    def run(self) -> None:
        """Serve until the service has stopped and no connection is left."""
        raise NotImplementedError

    def listen(self, on: bool) -> None:
        """Watch the listeners, or look away from them."""
        raise NotImplementedError

    def forget(self, fd: int) -> None:
        """Watch a descriptor of ``service.watched`` no longer."""
        raise NotImplementedError

    def take(self, listener: Any) -> bool:
        """Accept what waits at a listener, within reason; True if its queue was found empty."""
        for _ in range(_ACCEPTS):
            connection = self.door.accept(listener)
            if connection is None:
                if not self.door.open():
                    self.listen(False)
                return bool(self.door.empty)
            self.begin(connection)
        return False

    def begin(self, connection: Connection) -> None:
        """Book a new connection and have it served, without waiting for it."""
        raise NotImplementedError

    def abort(self, reason: str) -> None:
        """End every connection now."""
        raise NotImplementedError

    def signalled(self, number: int) -> None:
        """A signal has come that the worker has no use for itself, or shares (SIGUSR1). Called in the engine's loop."""

    def changed(self) -> None:
        """The service's phase has changed. Called in the engine's own loop."""
        phase = self.service.phase
        if phase == RUNNING:
            return
        # With --reuse-port nobody else may be there to accept who is queued at this worker's own listeners.
        if phase == STOPPING or (phase == RETIRING and self.service.config.reuse_port):
            self._listeners_until = time.monotonic() + _LAST_CALL
        else:
            self.close_listeners()
        if phase == STOPPING:
            self._fresh_until = time.monotonic() + FIRST_BYTE
            self.rouse()
        if phase == ENDING:
            self.abort("the server is stopping")

    def rouse(self, fresh: bool = False) -> None:
        """End what rests: after SHUT_RD what has arrived is still read and answered, then the stream ends.

        A connection that is FRESH is about to bring its first request, so it is ended a moment later (``fresh``).
        """
        for connection in list(self.connections):
            if connection.rest != BUSY and (fresh or connection.rest != FRESH) and connection.fd >= 0:
                shutdown(connection.fd, socket.SHUT_RD)

    def close_listeners(self) -> None:
        """Take nothing new from now on."""
        if self.service.listeners:
            self.listen(False)
            for listener in self.service.listeners:
                listener.close()
            self.service.listeners = []

    def stopped(self) -> bool:
        """Once a turn, when the phase is past RUNNING: goes on with the stop; True when all is done."""
        now = self.clock.now
        if self.service.phase < ENDING and self.service.listeners and now >= self._listeners_until:
            emptied = [self.take(listener) for listener in self.service.listeners]
            if all(emptied):
                self.close_listeners()
        if self.service.phase == STOPPING and now >= self._fresh_until:
            self._fresh_until = INFINITY
            self.rouse(fresh=True)
        if now >= self.service.end_at:
            self.close_listeners()
            if self.connections:
                self.abort(LATE)
        return not self.connections and not self.service.listeners

    def accepted(self, connection: Connection) -> None:
        """Book a new connection and give it its handler."""
        self.connections.add(connection)
        self.row.put(CONNECTIONS, len(self.connections))
        connection.generator = self.service.handler(connection)

    def ended(self, connection: Connection) -> None:
        """Book the end of a connection and close its descriptor."""
        connection.discard()
        self.connections.discard(connection)
        self.row.put(CONNECTIONS, len(self.connections))
        fd, connection.fd = connection.fd, -1
        connection.generator = connection.job = connection.waker = None
        if fd >= 0:
            self.close_descriptor(fd)
        self.door.left(connection)

    def close_descriptor(self, fd: int) -> None:
        """Close the descriptor of a connection that has ended."""
        os.close(fd)


def peer_has_reset(fd: int) -> bool:
    """Whether a connected socket is dead, found out by writing nothing to it (no byte goes out, no data is read).

    A peer that has only closed its sending side is not dead. An error that the kernel holds for the socket is used up.
    """
    try:
        os.write(fd, b"")
    except BlockingIOError:
        return False
    except OSError:
        return True
    return False


def close_handler(connection: Connection, reason: str, say: Any) -> None:
    """Close a handler because its connection failed; what its ``finally`` raises is logged, not raised."""
    if not connection.failure:
        connection.failure = reason
    try:
        if connection.generator is not None:
            connection.generator.close()
    except Exception:
        say("a handler failed while it was being closed")
