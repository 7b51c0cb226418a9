"""The timeouts of a connection, and --min-rate, on every engine; what the master is told of a worker's work."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest
from tests.apps.server import ALL, INLINE, Client, serving, wait_for
from tests.apps.site import Site
from tests.engines.harness import until

SHORT = 0.4
LATE = 4.0  # seconds: blocking engines look at a deadline once a second, and the machine has other things to do


def quick_to_judge() -> None:
    """Ask --min-rate of a body sooner than a server does."""
    from stoker.apps import http

    http._RATE_GRACE = SHORT


def elapsed(started: float) -> float:
    return time.monotonic() - started


@contextlib.contextmanager
def dripping(client: Client, text: bytes) -> Iterator[None]:
    """Have a thread send ``text``, a byte every 50 ms, until the block is left."""
    enough = threading.Event()

    def drip() -> None:
        for byte in text:
            client.send(bytes([byte]))
            if enough.wait(0.05):
                return

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def in_time(started: float, least: float = SHORT) -> bool:
    return least - 0.05 <= elapsed(started) < least + LATE


@pytest.mark.parametrize("configuration", ALL)
def test_header_timeout(configuration: str) -> None:
    with (
        serving(configuration, Site("/dev/null"), header_timeout=SHORT) as server,
        server.client() as silent,
        server.client() as half,
        server.client() as drip,
        server.client() as second,
    ):
        second.get("/")
        started = time.monotonic()
        half.send(b"GET / HTTP/1.1\r\nHo")
        second.send(b"GET / HTTP/1.1\r\nHo")

        with dripping(drip, b"GET / HTTP/1.1\r\nHost: a\r\nX-" + b"a" * 500):
            assert silent.closed()
            assert in_time(started)
            for client in (half, second, drip):
                assert client.response().status == 408
                assert in_time(started)


@pytest.mark.parametrize("configuration", ALL)
def test_keep_alive_timeout(configuration: str) -> None:
    with serving(configuration, Site("/dev/null"), keep_alive=SHORT) as server, server.client() as client:
        client.get("/")
        time.sleep(SHORT / 2)  # the test: within the timeout, which begins anew with each response
        client.get("/")
        started = time.monotonic()
        assert client.closed()
        assert in_time(started)


@pytest.mark.parametrize("configuration", ALL)
def test_body_timeout(configuration: str) -> None:
    """Without progress: a body that comes slowly has all the time that it needs."""
    with (
        serving(configuration, Site("/dev/null"), body_timeout=SHORT) as server,
        server.client() as slow,
        server.client() as stuck,
    ):
        stuck.ask("/digest", "Content-Length: 10", method="POST", body=b"12")
        slow.ask("/digest", "Content-Length: 4", method="POST")
        started = time.monotonic()
        for byte in b"slow":
            time.sleep(SHORT / 2)  # the test
            slow.send(bytes([byte]))
        assert slow.response().body.startswith(b"4 ")
        assert stuck.response().status == 408
        assert in_time(started)
        assert stuck.closed()


@pytest.mark.parametrize("configuration", ALL)
def test_write_timeout(configuration: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Without progress: a client that reads slowly gets everything."""
    notes = tmp_path_factory.mktemp("write") / "notes"
    with (
        serving(configuration, Site(str(notes)), write_timeout=SHORT * 2) as server,
        server.client() as slow,
        server.client() as stuck,
    ):
        stuck.ask("/blocks?n=300&size=100000&key=stuck")
        slow.ask("/blocks?n=60&size=100000&key=slow")
        started = time.monotonic()
        for _ in range(4):
            time.sleep(SHORT)  # the test
            slow._exactly(500_000)
        slow._until(b"9" * 100_000 + b"\r\n0\r\n\r\n")
        wait_for(notes, "closed stuck")
        assert elapsed(started) < 30
        assert b"0\r\n\r\n" not in stuck.rest()[-5:]


@pytest.mark.parametrize("configuration", ALL)
def test_min_rate(configuration: str) -> None:
    with (
        serving(configuration, Site("/dev/null"), quick_to_judge, min_rate=100, body_timeout=5) as server,
        server.client() as client,
    ):
        client.ask("/digest", "Content-Length: 100000", method="POST")
        started = time.monotonic()
        with dripping(client, b"x" * 1000):
            assert client.response().status == 408
            assert in_time(started)
        assert server.get("/digest", method="POST", body=b"x" * 100_000).status == 200


@pytest.mark.parametrize("configuration", ALL)
def test_the_master_sees_what_holds_a_loop_up(configuration: str) -> None:
    """An application that runs inline is shown as such, so that --worker-timeout never limits a request."""
    with serving(configuration, Site("/dev/null")) as server, server.client() as client:
        assert server.row.busy == 0
        client.ask("/sleep?for=1.3")
        if configuration in (*INLINE, "gevent"):
            until(lambda: server.row.busy == 1, what="the call")
        if configuration not in INLINE:
            turn = server.row.turn
            until(lambda: server.row.turn > turn, 1.2, "a turn while the application sleeps")
        assert client.response().body == b"slept"
        assert server.row.busy == 0
        until(lambda: server.row.turn > time.monotonic() - 0.5, what="a turn")
        until(lambda: server.row.requests == 1, what="the count")
