"""Ten thousand idle connections that are kept, beside live traffic (`./scripts/test --long`)."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from tests.engines.harness import URING
from tests.life.clients import KEEP, Clients, ask
from tests.life.conftest import Real
from tests.life.test_leaks import memory

SIZES = dict.fromkeys(("poll", "epoll", "epoll-edge", "generator", "greenlet", "gevent", "asyncio", *URING), 10000)
SIZES["select"] = 900
BATCH = 100  # opened together
LIVE = 2_000  # requests beside them


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Room for the clients' ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("descriptors")
@pytest.mark.parametrize("configuration", SIZES)
def test_idle_connections_beside_live_traffic(
    serve: Callable[..., Real], configuration: str, record_property: Callable[[str, object], None]
) -> None:
    count = SIZES[configuration]
    server = serve(configuration, keep_alive=600)
    (worker,) = server.workers()
    with Clients(server.address, 2, 0) as clients:
        clients.more(500)
    before = memory(worker)
    idle: list[socket.socket] = []
    try:
        for _ in range(count // BATCH):  # in one turn of the loop, which for poll is a look at all of them
            batch = [socket.create_connection(server.address, 30) for _ in range(BATCH)]
            idle += batch
            for sock in batch:
                sock.sendall(KEEP)
            for sock in batch:
                assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        record_property("connections", count)
        record_property("bytes_each", round((memory(worker) - before) * 1024 / count))
        started = time.monotonic()
        with Clients(server.address, 2, 2) as clients:
            clients.more(LIVE, 120)
        record_property("requests_a_second", round(LIVE / (time.monotonic() - started)))
        assert clients.counts.lost == []
        assert clients.counts.raced == clients.counts.refused == 0
        for sock in idle[:: max(1, count // 500)]:
            assert ask(sock, True, False) == ("answered", True), "the idle ones are still there, and are served"
    finally:
        for sock in idle:
            sock.close()
