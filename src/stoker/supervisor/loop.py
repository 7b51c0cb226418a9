"""The master's loop: descriptors, and what to call when they are readable."""

import math
from collections.abc import Callable

from stoker.net.unpatched import POLLIN, poll


class Loop:
    """poll(2) with a callback for each descriptor. The kernel keeps none of it, so nothing is shared after fork(2)."""

    def __init__(self) -> None:
        self._poll = poll()
        self._calls: dict[int, Callable[[], object]] = {}

    def add(self, fd: int, call: Callable[[], object]) -> None:
        """Call `call` in each turn in which `fd` is readable or at its end."""
        self._calls[fd] = call
        self._poll.register(fd, POLLIN)

    def remove(self, fd: int) -> None:
        """Forget `fd`; to be called before it is closed. It does not matter if it is not there."""
        if self._calls.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def __contains__(self, fd: int) -> bool:
        return fd in self._calls

    def turn(self, timeout: float) -> None:
        """Wait for at most `timeout` seconds, and call what there is to call."""
        # Rounded up: rounded down, the loop would turn without a rest in the last millisecond before a time.
        for fd, _ in self._poll.poll(max(0, math.ceil(timeout * 1000))):
            if fd in self._calls:  # an earlier callback may have removed it
                self._calls[fd]()
