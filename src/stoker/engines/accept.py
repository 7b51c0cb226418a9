"""Who may come in: accept(2), and what happens when there is no room.

At the cap the connection that has been idle longest goes first. If none is idle, ``--on-overload`` decides: ``wait``
leaves new connections in the accept queue, ``503`` answers and closes, ``close`` closes. Out of descriptors, accepting
pauses with a growing delay while everything else is served.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from stoker import log
from stoker.connection import BUSY, CHUNK, IDLE, INFINITY, STOPPING, Connection, Service, shutdown
from stoker.stats import ACCEPTED, REFUSED

try:
    import cython
except ImportError:
    from stoker import nocython as cython

if not cython.compiled:
    from stoker.plain import accept_now

# accept(2): errors of the connection that was about to be accepted; the next one may be fine.
PASSING = {
    errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.ENOPROTOOPT, errno.EHOSTDOWN,
    errno.ENONET, errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH, errno.ETIMEDOUT, errno.EINTR,
}  # fmt: skip
EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_PARTING_MAX = 64  # refused clients that are given a moment to read their 503
_PARTING_TIME = 1.0
_LEAVING = 0.05  # seconds that an idle connection has to go before another one is asked
_FULL = 0.1  # seconds between two looks for an idle connection while clients wait
_REPEAT = 10.0  # seconds between two log lines that say the same


class Door:
    """The accepting side of one engine.

    :param connections: the engine's open connections, which the door only reads
    :param cap: how many there may be
    :param lowest_refused: descriptors from this number on cannot be served (select); None if all can
    """

    def __init__(
        self, service: Service, connections: set[Connection], cap: int, lowest_refused: int | None = None
    ) -> None:
        self.service = service
        self.connections = connections
        self.clock = service.clock
        self.cap = cap
        self.lowest_refused = lowest_refused
        self.policy: str = service.config.on_overload
        self.per_address: int = service.config.max_connections_per_ip
        self.addresses: dict[str, int] = {}
        self.empty = False  # the last accept found the queue empty
        self.full_until = 0.0  # all busy: until a connection ends, or then, since one may have become idle
        self.closed_until = 0.0  # out of descriptors until then
        self._delay = 0.0
        self._victims: deque[tuple[float, Connection]] = deque()
        self._parting: deque[tuple[float, int]] = deque()
        self._said: dict[str, float] = {}
        self.make_room: Callable[[], bool] = self._end_an_idle_one

    def open(self) -> bool:
        """Whether accepting makes sense at this moment."""
        return self.clock.now >= max(self.closed_until, self.full_until)

    def opens_at(self) -> float:
        """When to look again, if no connection ends before; INFINITY if only that can open it."""
        waits = [when for when, _ in self._parting]
        waits += [when for when in (self.closed_until, self.full_until) if when > self.clock.now]
        return min(waits, default=INFINITY)

    def accept(self, listener: Any) -> Connection | None:
        """The next connection, non-blocking, or None: then ``empty`` says whether the queue was empty."""
        self.empty = False
        while True:
            refuse = False
            if len(self.connections) >= self.cap:
                if not self.waits(listener):
                    self.empty = True
                    return None
                if self.make_room():
                    self.full_until = self.clock.now + _LEAVING
                    return None
                if self.policy == "wait" or self.service.phase >= STOPPING:
                    self.full_until = self.clock.now + _FULL
                    self.say(
                        f"all {self.cap} connections are busy: new ones wait in the accept queue (--max-connections)"
                    )
                    return None
                refuse = True
            try:
                came = self.fetch(listener)
            except OSError as error:
                if error.errno in PASSING:
                    continue
                if error.errno in EXHAUSTED:
                    self.pause(error)
                    return None
                if listener.sock.fileno() < 0 or error.errno in (errno.EINVAL, errno.EBADF):
                    self.empty = (
                        True  # shut down for reading (refuse_new on a unix socket) or closed: no more will come
                    )
                    return None
                raise
            self._delay = 0.0
            if came is None:
                self.empty = True
                return None
            fd, peer = came
            if refuse:
                self.say(f"all {self.cap} connections are busy: new ones are refused (--max-connections)")
                self._refuse(fd)
            elif self.lowest_refused is not None and fd >= self.lowest_refused:
                self.say(
                    f"descriptor {fd} is past FD_SETSIZE, select cannot watch it: the connection is refused "
                    f"(use --engine poll or epoll, or a lower --max-connections)"
                )
                self._refuse(fd)
            elif self.per_address and not self._admit(peer):
                self.say(f"{peer[0]} has {self.per_address} connections open: a further one is refused")
                self._refuse(fd)
            else:
                self.service.row.add(ACCEPTED, 1)
                return Connection(fd, peer, listener, self.clock)

    def waits(self, listener: Any) -> bool:
        """Whether there is somebody in the accept queue, without accepting."""
        poll = select.poll()
        poll.register(listener.sock, select.POLLIN)
        return bool(poll.poll(0))

    def fetch(self, listener: Any) -> tuple[int, Any] | None:
        """Accept: a non-blocking descriptor and the peer's address; None if nobody waits. Raises OSError."""
        came: tuple[int, Any] | None = accept_now(listener.sock)
        return came

    def left(self, connection: Connection) -> None:
        """A connection that ``accept`` gave has ended."""
        self.full_until = 0.0
        if self.per_address and isinstance(connection.peer, tuple):
            address = connection.peer[0]
            count = self.addresses.get(address, 0) - 1
            if count > 0:
                self.addresses[address] = count
            else:
                self.addresses.pop(address, None)

    def tick(self) -> None:
        """Close the refused clients whose moment is over."""
        now = self.clock.now
        while self._parting and (self._parting[0][0] <= now or len(self._parting) > _PARTING_MAX):
            _, fd = self._parting.popleft()
            self._part(fd)

    def close(self) -> None:
        """Close the refused clients, whose moment is over with the engine."""
        while self._parting:
            self._part(self._parting.popleft()[1])

    def _admit(self, peer: Any) -> bool:
        if not isinstance(peer, tuple):
            return True
        count = self.addresses.get(peer[0], 0)
        if count >= self.per_address:
            return False
        self.addresses[peer[0]] = count + 1
        return True

    def _end_an_idle_one(self) -> bool:
        """Ask the connection that has been idle longest to go.

        A list of candidates is made once for many, so that a full house under a flood costs no scan an accept.
        """
        for fresh in (False, True):
            if fresh:
                idle = [(c.since, i, c) for i, c in enumerate(list(self.connections)) if c.rest >= IDLE]
                idle.sort()
                self._victims.extend((since, c) for since, _, c in idle[: max(16, len(idle) // 16)])
            while self._victims:
                since, victim = self._victims.popleft()
                if victim.rest >= IDLE and victim.since == since and victim.fd >= 0:
                    victim.rest = BUSY
                    shutdown(victim.fd, socket.SHUT_RD)
                    return True
        return False

    def _refuse(self, fd: int) -> None:
        self.service.row.add(REFUSED, 1)
        if self.policy == "close" or not self.service.full_answer:
            os.close(fd)
            return
        try:
            try:
                os.read(fd, CHUNK)
            except BlockingIOError:
                pass
            os.write(fd, self.service.full_answer)
            shutdown(fd, socket.SHUT_WR)
        except OSError:
            os.close(fd)
            return
        # Closing with unread bytes in the socket resets the connection and may destroy the answer on its way.
        self._parting.append((self.clock.now + _PARTING_TIME, fd))
        self.tick()

    @staticmethod
    def _part(fd: int) -> None:
        try:
            while os.read(fd, CHUNK):
                pass
        except OSError:
            pass
        os.close(fd)

    def pause(self, error: OSError) -> None:
        """Out of descriptors: accept nothing for a while, a longer one each time."""
        self._delay = min(1.0, self._delay * 2 or 0.05)
        self.closed_until = self.clock.now + self._delay
        self.say(
            f"cannot accept: {error.strerror}; accepting pauses, the rest is served (ulimit -n, --max-connections)"
        )

    def say(self, message: str) -> None:
        """Log a warning, unless the same has been said in the last ten seconds."""
        now = self.clock.now
        key = message[:40]
        if now >= self._said.get(key, 0.0):
            self._said[key] = now + _REPEAT
            log.warning(message)
