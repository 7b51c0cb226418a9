"""The loop of the load client: one thread, one epoll object, three system calls for a request at the most.

A connection is registered once, level-triggered, for reading. An answer is taken by one receive, and the next
request goes out at once; only where the kernel has no room for a request is the connection watched for writing too. A
new connection is tried by sending: loopback has mostly made it by then, and a failure comes back from there as well.

Times are nanoseconds of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import errno
import os
import select
from collections import deque
from collections.abc import Sequence
from typing import Any

try:
    import cython
except ImportError:
    from stoker import nocython as cython

from stoker.errors import StokerError
from stoker.load.answers import Answers, Link
from stoker.load.head import FramingError
from stoker.load.plan import packed

if not cython.compiled:
    from stoker.load.calls import (
        check_signals,
        dial,
        end_poller,
        event_fd,
        event_mask,
        hang_up,
        nap,
        new_poller,
        now,
        receive,
        restore,
        sharpen,
        transmit,
        wait,
        watch,
        whole,
    )  # fmt: skip

IN = select.EPOLLIN
OUT = select.EPOLLOUT
EAGAIN = errno.EAGAIN

REST = 10_000_000  # after a failure a connection is tried again so much later, lest failures are all that is counted
LATE = 1_000_000  # a request that goes out so much after its time is late
LOOK = 50_000_000  # how often it is looked for requests that have timed out
ROOM = 131072  # the size of the receive buffer


BUILD = "compiled" if cython.compiled else "interpreted"


class Unreachable(StokerError):
    """Nothing could be reached at the target."""


def endpoint(address: Any) -> Any:
    """An address of the socket module as `calls.dial` takes it: a sockaddr for C, itself for Python."""
    return packed(address) if cython.compiled else address


class Driver(Answers):
    """One run against one address.

    :param batch: the bytes of as many requests as are sent together
    :param pipeline: how many those are
    :param connections: how many connections there are at a time
    :param family: of the address; `remote` and the addresses to come from, `sources`, are as `calls.dial` takes them
    :param close: a new connection for each request
    :param interval: nanoseconds from one request to the next, over all connections; 0: closed loop
    :param duration: nanoseconds in which requests are sent, `warm_up` included; 0: until `quota` is sent
    :param quota: how many requests are sent; 0: until `duration` is over
    :param warm_up: nanoseconds at the beginning that are not counted
    :param timeout: nanoseconds that an answer may take
    """

    def __init__(
        self,
        answers: tuple[bytes, bool, int, int],
        *,
        batch: bytes,
        pipeline: int,
        connections: int,
        family: int,
        remote: Any,
        sources: Sequence[Any],
        close: bool,
        interval: float,
        duration: int,
        quota: int,
        warm_up: int,
        timeout: int,
    ) -> None:
        Answers.__init__(self, *answers)
        self.batch = batch
        self.pipeline = pipeline
        self.size = len(batch) // pipeline
        self.family = family
        self.remote = remote
        self.sources = list(sources)
        self.close = close
        self.interval = interval
        self.duration = duration
        self.quota = quota or 1 << 62
        self.warm_up = warm_up
        self.timeout = timeout
        self.everyone = [self.new_link() for _ in range(connections)]
        self.by_fd: list[Any] = []
        self.free: deque[Link] = deque()  # at constant rate: who waits for a request to become due
        self.resting: deque[Link] = deque()  # who has failed
        self.poller = new_poller()
        if not cython.compiled:
            self.events: list[tuple[int, int]] = []
        self.origin = self.counted = self.end = self.mark = self.alarm = self.next_look = 0
        self.spin = False
        self.stopping = False
        self.reached = False
        self.flying = 0
        self.opened = 0
        self.received = 0
        self.late = 0
        self.unsent = 0
        self.warmed = 0
        self.cpu = 0.0
        self.failures = {"connect": 0, "reset": 0, "timeout": 0, "framing": 0}
        self.details: dict[str, str] = {}

    def adopt(self, place: int, fd: int) -> None:
        """Give a connection that is established, and does not block, to one of the places."""
        link = self.everyone[place]
        link.renew(fd)
        link.connected = True
        self.reached = True
        self.opened += 1
        self.enter(link)

    def enter(self, link: Link) -> None:
        """Make a connection known by its descriptor."""
        while len(self.by_fd) <= link.fd:
            self.by_fd.append(None)
        self.by_fd[link.fd] = link

    def drive(self, cpu: Any) -> None:
        """Run until all is sent and answered. `cpu` gives the seconds of CPU time that this thread has used.

        Raises Unreachable when no connection can be made at all, KeyboardInterrupt when a signal asks for that.
        """
        self.origin = self.counted = self.moment = self.answered_at = now()
        self.mark = self.origin + self.warm_up
        self.end = self.origin + self.duration if self.duration else 1 << 62
        self.next_look = self.alarm = self.moment
        self.cpu = cpu()
        if not self.warm_up:
            self.mark = 1 << 62
        slack = sharpen(1)  # or a request of a constant rate goes out 50 microseconds late (prctl(2))
        try:
            for link in self.everyone:
                self.moment = now()
                self.rest(link)
            while not self.stopping or self.flying:
                self.turn(cpu)
        finally:
            sharpen(slack)

    def turn(self, cpu: Any) -> None:
        """Wait once, and do what there is to do."""
        count = self.look_out()
        check_signals()
        place = 0
        while place < count:
            link = self.by_fd[event_fd(self.events, place)]
            mask = event_mask(self.events, place)
            place += 1
            if link is None:
                continue
            if mask & ~OUT:
                self.readable(link)
            elif link.flying:
                self.push(link)
        self.moment = now()
        if self.moment >= self.alarm:
            self.tend(cpu)
        if self.interval:
            self.dispatch()

    def look_out(self) -> int:
        """Wait for events until there is something else to do; how many there are."""
        ahead = self.alarm - self.moment
        if self.spin:  # a client that sleeps has to be woken, which costs the server's core, not its own
            return wait(self.poller, self.events, 0)
        if self.interval == 0:
            return wait(self.poller, self.events, (ahead + 999_999) // 1_000_000 if ahead > 0 else 0)
        if self.free and not self.stopping:
            due = self.origin + whole(self.sent * self.interval)
            ahead = min(ahead, due - self.moment)
        count = wait(self.poller, self.events, 0)
        if count == 0 and ahead > 0:
            nap(self.poller, ahead)
            count = wait(self.poller, self.events, 0)
        return count

    def tend(self, cpu: Any) -> None:
        """Look after what hangs on the clock: the end, the end of the warm-up, timeouts, those that have failed."""
        if self.moment >= self.mark:
            self.begin_counting(cpu)
        if self.moment >= self.end:
            self.stop()
        if self.moment >= self.next_look:
            self.next_look = self.moment + LOOK
            for link in self.everyone:
                if link.flying and self.moment - link.begun > self.timeout:
                    for _ in range(link.pending):
                        self.histogram.record(self.moment - link.due)
                    self.fail(link, "timeout", f"no answer within {self.timeout / 1e9:g} s")
        while self.resting and self.resting[0].begun <= self.moment:
            self.rest(self.resting.popleft())
        self.alarm = min(self.next_look, self.mark, self.end if not self.stopping else self.next_look)
        if self.resting:
            self.alarm = min(self.alarm, self.resting[0].begun)

    def begin_counting(self, cpu: Any) -> None:
        """Forget what the warm-up has counted; failures stay."""
        self.warmed = self.requests
        self.requests = self.received = self.late = self.wrong_status = self.wrong_body = 0
        self.wrong_status_detail = self.wrong_body_detail = ""
        self.histogram.clear()
        self.counted = self.moment
        self.mark = 1 << 62
        self.cpu = cpu()

    def stop(self) -> None:
        """Send nothing any more. A request whose time has come, but not its turn, counts by what it has waited."""
        if self.stopping:
            return
        self.stopping = True
        self.resting.clear()
        if not self.interval:
            return
        while self.sent + self.unsent < self.quota:
            due = self.origin + whole((self.sent + self.unsent) * self.interval)
            if due >= self.moment or due >= self.end:
                break
            self.unsent += 1
            self.histogram.record(self.moment - due)

    def dispatch(self) -> None:
        """At constant rate: give the requests whose time has come to the connections that have been free longest."""
        while self.free and not self.stopping:
            if self.sent >= self.quota:
                self.stop()
                return
            due = self.origin + whole(self.sent * self.interval)
            if due > self.moment:
                return
            if self.moment - due > LATE:
                self.late += 1
            self.begin(self.free.popleft(), due)

    def rest(self, link: Link) -> None:
        """Let a connection without requests send some, now or when they are due."""
        if self.interval:
            self.free.append(link)
        elif not self.stopping:
            if self.sent >= self.quota or self.moment >= self.end:
                self.stop()
            else:
                self.begin(link, self.moment)

    def begin(self, link: Link, due: int) -> None:
        """Send the next requests, over a new connection if there is none."""
        count = min(self.pipeline, self.quota - self.sent)
        link.pending = count
        link.offset = 0
        link.limit = count * self.size
        link.begun = self.moment
        link.due = due
        link.flying = True
        self.flying += 1
        self.sent += count
        if link.fd < 0:
            fd = dial(self.family, self.remote, self.sources[self.opened % len(self.sources)] if self.sources else None)
            if fd < 0:
                self.fail(link, "connect", os.strerror(-fd))
                return
            self.opened += 1
            link.renew(fd)
            self.enter(link)
        self.push(link)

    def push(self, link: Link) -> None:
        """Send what the kernel takes of the batch, and watch for what is to come."""
        if link.offset < link.limit:
            count = transmit(link.fd, self.batch, link.offset, link.limit)
            if count >= 0:
                link.offset += count
                if not link.connected:
                    link.connected = self.reached = True
            elif count != -EAGAIN:
                if not link.connected:
                    self.fail(link, "connect", os.strerror(-count))
                    return
                link.cut = -count  # an answer may have come before the server closed: reading will tell
                link.offset = link.limit
        mask = IN if link.offset == link.limit else IN | OUT
        if mask != link.mask:
            watch(self.poller, link.fd, mask, link.mask != 0)
            link.mask = mask
        if link.pending == 0 and link.offset == link.limit:
            self.completed(link)

    def readable(self, link: Link) -> None:
        """Receive once, and go on with the next requests if all are answered."""
        kept = len(link.kept)
        if kept:
            restore(self.buffer, link.kept)
        count = receive(link.fd, self.buffer, kept, ROOM)
        if count == -EAGAIN:
            if link.mask & OUT and link.flying:
                self.push(link)
            return
        self.moment = now()
        try:
            if count <= 0:
                self.ended(link, -count)
                return
            link.kept = b""
            self.received += count
            self.read(link, kept + count)
        except FramingError as error:
            self.fail(link, "framing", str(error))
            return
        if link.pending == 0:
            self.completed(link)
        elif link.mask & OUT:
            self.push(link)

    def ended(self, link: Link, failure: int) -> None:
        """The stream has ended, or failed with this errno. Raises FramingError when that cuts an answer off."""
        if failure:
            kind = "reset" if link.connected else "connect"
            self.fail(link, kind, os.strerror(link.cut or failure))
        elif self.ending(link) or (link.flying and link.pending == 0):
            link.last = True
            self.completed(link)
        elif link.flying:
            self.fail(link, "reset", "the server closed without an answer")
        else:
            self.shut(link)

    def completed(self, link: Link) -> None:
        """All is answered: go on with the next requests, once the last byte of these is sent."""
        over = self.close or link.last or link.cut != 0
        if link.offset < link.limit and not over:
            return
        link.flying = False
        self.flying -= 1
        if over:
            self.shut(link)
        self.rest(link)

    def fail(self, link: Link, kind: str, detail: str) -> None:
        """Count what is lost, close the connection, and try another one a moment later."""
        self.failures[kind] += link.pending or 1
        self.details.setdefault(kind, detail)
        flew = link.flying
        if flew:
            self.flying -= 1
        link.flying = False
        link.pending = 0
        self.shut(link)
        if kind == "connect" and not self.reached:
            raise Unreachable(detail)
        if flew and not self.stopping:
            link.begun = self.moment + REST
            self.resting.append(link)
            self.alarm = min(self.alarm, link.begun)

    def shut(self, link: Link) -> None:
        """Close a connection."""
        if link.fd >= 0:
            self.by_fd[link.fd] = None
            hang_up(link.fd)
        link.renew(-1)

    def descriptors(self) -> list[int]:
        """Those of the connections that are open."""
        return [link.fd for link in self.everyone if link.fd >= 0]

    def all_details(self) -> dict[str, str]:
        """The first failure of each kind, in words, and the first wrong answer."""
        wrong = {"status": self.wrong_status_detail, "body": self.wrong_body_detail}
        return self.details | {kind: text for kind, text in wrong.items() if text}

    def release(self) -> None:
        """Close all connections and the epoll object."""
        for link in self.everyone:
            self.shut(link)
        end_poller(self.poller)
