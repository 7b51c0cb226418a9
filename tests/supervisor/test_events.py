"""The real thing: `python -m stoker` on every engine, while a counting client of our own asks all the time.

No request may be lost by a reload, by a worker more or less, or by `--max-requests`; by `kill -9` only those that are
inside the killed process. Clients that keep their connections and clients that do not.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.supervisor.harness import ENVIRONMENT, Server, alive, children, wait_for
from tests.supervisor.http import HTTPClients

from stoker import engines

APP = """
import os
def app(environ, start_response):
    body = b"%d %s" % (os.getpid(), os.environ.get("ANSWER", "first").encode())
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""


class Real(Server):
    """`python -m stoker` with options as keywords."""

    def __init__(self, directory: Path, **options: object) -> None:
        self.directory = directory
        self.log_path = directory / "log"
        (directory / "served.py").write_text(APP)
        words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not True]
        words += [f"--{name.replace('_', '-')}" for name, value in options.items() if value is True]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stoker", "served:app", "--bind=127.0.0.1:0", "--no-keys", *words],
                cwd=directory, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip
        self.pid = self.process.pid


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Real]]:
    servers: list[Real] = []

    def started(**options: object) -> Real:
        servers.append(Real(tmp_path, **options))
        return servers[-1]

    yield started
    for server in servers:
        server.stop()


CONFIGURATIONS = [
    pytest.param(
        {"engine": name},
        id=name,
        marks=pytest.mark.skipif(bool(engines.unavailable(name)), reason=str(engines.unavailable(name))),
    )
    for name in engines.REGISTRY
] + [
    pytest.param({"engine": "epoll", "trigger": "edge"}, id="epoll-edge"),
    pytest.param({"engine": "epoll", "reuse_port": True}, id="epoll-reuse-port"),
    pytest.param({"engine": "epoll", "threads": 4}, id="epoll-pool"),
]


@pytest.mark.parametrize("options", CONFIGURATIONS)
def test_nothing_is_lost(serve: Callable[..., Real], options: dict[str, object]) -> None:
    server = serve(workers=2, graceful_timeout=3, **options).ready(2)
    with HTTPClients(server.port, keep=2, close=2) as clients:
        for turn in range(3):
            server.kill(signal.SIGHUP)
            server.wait_log("every worker is new", turn + 1)
            clients.more(10)
        wait_for(lambda: len(server.workers()) == 2, "the retired workers are gone")
        for wanted in (3, 4, 3, 2, 1):
            server.kill(signal.SIGTTIN if wanted > len(server.workers()) else signal.SIGTTOU)
            wait_for(lambda wanted=wanted: len(server.workers()) == wanted, f"{wanted} workers")
            clients.more(10)
    assert clients.failures == []
    assert clients.closed_while_idle <= clients.answers / 20
    server.kill()
    assert server.wait() == 0
    assert "killed" not in server.log(), "everybody ended in time"


@pytest.mark.parametrize("options", CONFIGURATIONS)
def test_a_killed_worker_loses_what_is_inside_it_alone(serve: Callable[..., Real], options: dict[str, object]) -> None:
    server = serve(workers=2, **options).ready(2)
    for turn in range(3):
        victim = server.workers()[0]
        with HTTPClients(server.port, keep=0, close=1) as clients:
            clients.more(5)
            os.kill(victim, signal.SIGKILL)
            server.ready(3 + turn)
            clients.more(5)
        assert len(clients.failures) <= 1, "one client has one request inside"
    wait_for(lambda: len(children(server.pid)) == 2, "two workers, and no zombie")


@pytest.mark.parametrize("options", CONFIGURATIONS)
def test_max_requests(serve: Callable[..., Real], options: dict[str, object]) -> None:
    server = serve(workers=2, max_requests=60, max_requests_jitter=20, graceful_timeout=3, **options).ready(2)
    with HTTPClients(server.port, keep=2, close=2) as clients:
        server.ready(5)
    assert clients.failures == []
    wait_for(lambda: len(server.workers()) == 2, "two workers")
    assert server.log().count("asks to be replaced") >= 3


@pytest.mark.parametrize("options", CONFIGURATIONS)
def test_when_the_master_is_killed_all_end(serve: Callable[..., Real], options: dict[str, object]) -> None:
    server = serve(workers=2, graceful_timeout=3, **options).ready(2)
    workers = server.workers()
    with HTTPClients(server.port, keep=1, close=0) as clients:
        clients.more(3)
        family = [*workers, *(child for pid in workers for child in children(pid))]
        server.kill(signal.SIGKILL)
        server.wait()
        wait_for(lambda: not any(map(alive, family)), "every process ends")


@pytest.mark.parametrize("options", CONFIGURATIONS)
def test_preload(serve: Callable[..., Real], options: dict[str, object]) -> None:
    server = serve(workers=2, preload=True, pid="the.pid", graceful_timeout=3, **options).ready(2)
    with HTTPClients(server.port, keep=1, close=1) as clients:
        server.kill(signal.SIGHUP)
        server.wait_log("every worker is new")
        clients.more(10)
    assert clients.failures == []
    assert (server.directory / "the.pid").read_text() == f"{server.pid}\n"
    server.kill()
    assert server.wait() == 0
