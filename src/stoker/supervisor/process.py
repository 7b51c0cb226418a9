"""What the master knows of its workers: the processes, the slots that they fill, and when to try again."""

import contextlib
import os
import signal
import time
from dataclasses import dataclass, field

from stoker.net.listeners import Listener
from stoker.net.unpatched import Socket
from stoker.stats import Row

NEVER = float("inf")


class Worker:
    """A worker process, as the master sees it.

    :ivar number: what people call it: 1 is the first row
    :ivar slot: the index of the slot that it was started for
    :ivar generation: of the reload that started it; higher is newer
    :ivar born: when it was forked, time.monotonic()
    :ivar ready: it has said that it accepts connections
    :ivar tired: it has asked to be replaced
    :ivar leaving: it has been told to end, or will be as soon as it is ready
    :ivar farewell: what it is told then
    :ivar listeners: what it accepts from
    :ivar kill_at: when it is killed if it is still there
    :ivar seen: the turn of its loop that was seen last, and `since` when no other was
    """

    def __init__(self, pid: int, row: Row, slot: int, generation: int, control: Socket) -> None:
        self.pid = pid
        self.row = row
        self.number = row.index + 1
        self.slot = slot
        self.generation = generation
        self.control = control
        self.born = self.since = time.monotonic()
        self.ready = self.tired = self.leaving = self.killed = False
        self.listeners: list[Listener] = []
        self.farewell = 0
        self.kill_at = NEVER
        self.seen = 0.0

    def __str__(self) -> str:
        return f"worker {self.number} (process {self.pid})"

    def tell(self, number: int) -> None:
        """Tell it what a signal of this number would, without the chance that the signal meets it unprepared."""
        try:
            self.control.send(bytes([number]))
        except OSError:  # it has not read for long, or closed its end: a real signal needs neither
            self.send(number)

    def send(self, number: int) -> None:
        """Send a real signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once; signal(7): nothing holds SIGKILL up."""
        self.killed = True
        self.kill_at = NEVER
        self.send(signal.SIGKILL)

    def hear(self) -> bytes:
        """What it has said since the last call; b"" when nothing, or when its end is closed (then `deaf` is True)."""
        try:
            data = self.control.recv(64)
        except BlockingIOError:
            return b""
        except OSError:  # ECONNRESET: it died with our bytes unread
            data = b""
        self.deaf = not data
        return data

    deaf = False


class Pace:
    """When to start a process again that keeps ending.

    One that lived twice as long as the present interval is replaced at once. One that did not makes the interval
    double, from half a second on: the next start comes no sooner than that after the last. The interval ends at half a
    minute for what never works, which nobody misses; at two seconds for what did work, which somebody waits for.
    """

    FIRST = 0.5
    LAST = 30.0
    LAST_OF_GOOD = 2.0

    def __init__(self) -> None:
        self._interval = self.FIRST

    def delay(self, lived: float, good: bool) -> float:
        """How many seconds to wait, now that a process ended that lived for so many; `good`: it did work."""
        if lived >= 2 * self._interval:
            self._interval = self.FIRST
            return 0.0
        self._interval = min(2 * self._interval, self.LAST_OF_GOOD if good else self.LAST)
        return max(0.0, self._interval - lived)


@dataclass(eq=False)
class Slot:
    """A place for one worker. `successor` takes over as soon as it is ready; `due`: no start before that time."""

    index: int
    listeners: list[Listener]
    worker: Worker | None = None
    successor: Worker | None = None
    due: float = 0.0
    pace: Pace = field(default_factory=Pace)


def how(status: int) -> str:
    """How a process ended, in words: from the status of waitpid(2)."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}"
