"""What happens to a server in its life, under load, on every engine: which requests get lost.

A few events each in CI; `./scripts/test --long` has twenty of each on each engine. Half of the clients keep their
connections, half do not.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest
from tests.apps.server import ALL, chosen
from tests.life.clients import Clients
from tests.life.conftest import Real
from tests.supervisor.harness import alive, children, wait_for

Serve = Callable[..., Real]
HALF = 3  # clients that keep their connections, and as many that do not

FEW = [pytest.param(name, 2, id=f"{name}-2") for name in ("epoll", "thread")]
MANY = [pytest.param(name, 20, id=f"{name}-20", marks=[pytest.mark.long, pytest.mark.timeout(600)]) for name in ALL]
events = pytest.mark.parametrize(("configuration", "count"), FEW + MANY)
Record = Callable[[str, object], None]
OLD = 1.5  # seconds: a worker that was killed younger than a second is not replaced at once


def nothing_lost(clients: Clients, record_property: Record) -> None:
    """Every request was answered, but for those that met a connection which was just being closed as idle."""
    counts = clients.counts
    record_property("answered", counts.answered)
    record_property("raced", counts.raced)
    assert counts.lost == []
    assert counts.refused == 0
    assert counts.raced <= counts.answered / 20, "closing what rests is the exception, not the way connections end"


@events
def test_reload(serve: Serve, configuration: str, count: int, record_property: Record) -> None:
    server = serve(configuration, 2, graceful_timeout=5)
    with Clients(server.address, HALF, HALF) as clients:
        clients.more(20)
        for turn in range(count):
            former = set(server.workers())
            server.kill(signal.SIGHUP)
            server.wait_log("every worker is new", turn + 1)
            clients.more(20)
            wait_for(lambda former=former: not former & set(server.workers()), "the former workers are gone")
    nothing_lost(clients, record_property)


@events
def test_more_and_fewer_workers(serve: Serve, configuration: str, count: int, record_property: Record) -> None:
    server = serve(configuration, 1, graceful_timeout=5)
    with Clients(server.address, HALF, HALF) as clients:
        for _ in range(count):
            for number, workers in ((signal.SIGTTIN, 2), (signal.SIGTTOU, 1)):
                server.kill(number)
                wait_for(lambda workers=workers: len(server.workers()) == workers, f"{workers} workers")
                clients.more(20)
    nothing_lost(clients, record_property)


@events
def test_max_requests(serve: Serve, configuration: str, count: int, record_property: Record) -> None:
    server = serve(configuration, 2, graceful_timeout=5, max_requests=40, max_requests_jitter=20)
    with Clients(server.address, HALF, HALF) as clients:
        for number in range(1, count + 1):
            server.wait_log("asks to be replaced", number)
            server.ready(2 + number)
        clients.more(20)
    nothing_lost(clients, record_property)


@events
def test_a_killed_worker(serve: Serve, configuration: str, count: int, record_property: Record) -> None:
    """Lost is at most what was inside: one request of each client."""
    server = serve(configuration, 2)
    seen: dict[int, float] = {}
    with Clients(server.address, HALF, HALF) as clients:
        for turn in range(count):
            clients.more(20)
            for pid in server.workers():
                seen.setdefault(pid, time.monotonic())
            victim = min(server.workers(), key=seen.__getitem__)
            wait_for(
                lambda victim=victim: time.monotonic() > seen[victim] + OLD, "an age at which it is replaced at once"
            )
            family = [victim, *children(victim)]
            os.kill(victim, signal.SIGKILL)
            server.ready(3 + turn)
            wait_for(lambda family=family: not any(map(alive, family)), "the dead worker's children end with it")
        clients.more(20)
    counts = clients.counts
    record_property("answered", counts.answered)
    record_property("lost", len(counts.lost))
    record_property("raced", counts.raced)
    assert counts.refused == 0
    assert len(counts.lost) + counts.raced <= count * 2 * HALF
    assert all("EOFError" in what or "ConnectionResetError" in what or "BrokenPipe" in what for what in counts.lost)
    assert "Traceback" not in server.log()


@events
def test_stop_while_busy(
    serve: Serve, configuration: str, count: int, record_property: Record, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whoever got a connection got an answer; who came later was refused."""
    answered = 0
    for _ in range(count):
        server = Real(tmp_path_factory.mktemp("stop"), workers=2, graceful_timeout=5, **chosen(configuration))
        try:
            server.ready(2)
            with Clients(server.address, HALF, HALF) as clients:
                clients.more(100)
                server.kill(signal.SIGTERM)
                clients.gone()
            assert clients.counts.lost == []
            assert clients.counts.refused == 2 * HALF
            assert clients.counts.raced <= HALF
            assert server.wait() == 0
            answered += clients.counts.answered
        finally:
            server.stop()
    record_property("answered", answered)
