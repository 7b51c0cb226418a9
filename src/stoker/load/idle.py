"""Connections that are opened, used once and then held open: what a server must carry beside its live traffic."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from contextlib import contextmanager

from stoker.errors import StokerError
from stoker.load.driver import Driver
from stoker.load.open import establish, make_driver, need_descriptors
from stoker.load.plan import Plan, resolve


class IdleError(StokerError):
    """A connection that was to be held idle could not be opened, or was not answered."""


class Idle:
    """Connections that are held open."""

    def __init__(self) -> None:
        self.drivers: list[Driver] = []

    def descriptors(self) -> list[int]:
        """Those of the connections that this side has open."""
        return [fd for driver in self.drivers for fd in driver.descriptors()]

    def __len__(self) -> int:
        return len(self.descriptors())

    def closed(self) -> int:
        """How many of them the server has closed, or sent something on that nobody asked for."""
        poller = select.poll()
        for fd in self.descriptors():
            poller.register(fd, select.POLLIN | select.POLLRDHUP)
        return len(poller.poll(0))

    def close(self) -> None:
        """Close them all."""
        for driver in self.drivers:
            driver.release()
        self.drivers.clear()


@contextmanager
def connect_idle(url: str, count: int, *, timeout: float = 10.0, size: int = 64) -> Iterator[Idle]:
    """Hold `count` connections to `url` open: each makes one request, or one echo of `size` bytes, and is idle then.

    They are closed at the end of the context. Raises ConfigError for a target that is not on this machine and for more
    connections than there may be descriptors, IdleError for a connection that fails within `timeout` seconds.
    """
    need_descriptors(count)
    idle = Idle()
    try:
        if count:
            hold(idle, Plan(url, timeout=timeout, size=size), count)
        yield idle
    finally:
        idle.close()


def hold(idle: Idle, plan: Plan, count: int) -> None:
    """Open `count` connections, make a request on each, and leave them to `idle`. Raises IdleError."""
    once = Plan(
        plan.url, connections=count, requests=count, timeout=plan.timeout, method=plan.method, fields=plan.fields,
        browser=plan.browser, size=plan.size,
    )  # fmt: skip
    target = resolve(once.url, count, False)
    driver = make_driver(once, target)
    idle.drivers.append(driver)
    try:
        establish(driver, target, count, once.timeout)
    except OSError as error:
        raise IdleError(
            f"only {driver.opened} of {count} idle connections to {plan.url} could be opened: {error}"
        ) from None
    driver.drive(time.thread_time)
    if driver.details:
        raise IdleError(f"idle connections to {plan.url}: {'; '.join(driver.details.values())}")
    if len(driver.descriptors()) < count:
        raise IdleError(f"{plan.url}: the server closes after the answer, so the connection cannot be held idle")
