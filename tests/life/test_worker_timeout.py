"""--worker-timeout is about the worker's loop: it never limits a request."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.apps.server import ALL, Client, chosen
from tests.life.conftest import Real
from tests.supervisor.harness import wait_for

SLOW = """
import time

def app(environ, start_response):
    time.sleep(float(environ["QUERY_STRING"] or 0))
    start_response("200 OK", [])
    return [b"slept"]
"""


@pytest.mark.parametrize("configuration", ALL)
def test_a_slow_request_is_not_a_stuck_worker(configuration: str, tmp_path: Path) -> None:
    server = Real(tmp_path, SLOW, workers=1, worker_timeout=1, **chosen(configuration))
    try:
        server.ready()
        (worker,) = server.workers()
        with Client(server.address) as client:
            assert client.get("/?3.5").body == b"slept"
            assert client.get("/?0").body == b"slept"
        assert server.workers() == [worker]
        assert "is ready" in server.log()
        assert server.log().count("is ready") == 1
    finally:
        server.stop()


def test_a_stuck_worker_is_replaced(serve: Callable[..., Real]) -> None:
    """One that is stopped: its loop does not turn, and no application code runs."""
    server = serve("epoll", worker_timeout=1)
    (worker,) = server.workers()
    started = time.monotonic()
    os.kill(worker, signal.SIGSTOP)
    wait_for(lambda: server.workers() and worker not in server.workers(), "another worker")
    assert time.monotonic() - started > 0.9
    server.ready(2)
    with Client(server.address) as client:
        assert client.get("/").status == 200
