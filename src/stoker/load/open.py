"""From a plan to a driver with its connections made."""

from __future__ import annotations

import resource
import socket
from typing import Final

from stoker.errors import ConfigError
from stoker.load.driver import Driver, endpoint
from stoker.load.plan import Plan, Target

SPARE: Final = 64  # descriptors beside those of the connections
IP_BIND_ADDRESS_NO_PORT: Final = 24  # ip(7); the socket module lacks it


def make_driver(plan: Plan, target: Target) -> Driver:
    """The driver of a plan; its connections are not made yet."""
    message = plan.message()
    return Driver(
        (message if plan.raw else b"", plan.method == "HEAD", plan.expect, plan.expect_bytes),
        batch=message * plan.pipeline,
        pipeline=plan.pipeline,
        connections=plan.connections,
        family=target.family,
        remote=endpoint(target.address),
        sources=[endpoint(source) for source in target.sources],
        close=plan.close,
        interval=1e9 / plan.rate if plan.rate else 0.0,
        duration=0 if plan.requests else round((plan.warm_up + plan.seconds) * 1e9),
        quota=plan.requests,
        warm_up=round(plan.warm_up * 1e9),
        timeout=round(plan.timeout * 1e9),
    )


def establish(driver: Driver, target: Target, count: int, timeout: float) -> None:
    """Make `count` connections, one after another, so that no server's backlog is too short. Raises OSError."""
    for place in range(count):
        with socket.socket(target.family, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if target.sources:
                sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind(target.sources[place % len(target.sources)])
            sock.connect(target.address)
            sock.setblocking(False)
            driver.adopt(place, sock.detach())


def need_descriptors(count: int) -> None:
    """Raise the limit of open files as far as `count` connections need. Raises ConfigError when that is not allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + SPARE
    if soft == resource.RLIM_INFINITY or wanted <= soft:
        return
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise ConfigError(
            f"{count:,} connections need {wanted:,} open files, and {hard:,} are allowed: "
            f"fewer connections, or a higher hard limit (ulimit -Hn, LimitNOFILE=)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
