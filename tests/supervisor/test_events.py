"""The real thing: `python -m stoker` on every engine, while a counting client of our own asks all the time.

No request may be lost by a reload, by a worker more or less, or by `--max-requests`; by `kill -9` only those that are
inside the killed process. Clients that keep their connections and clients that do not.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.supervisor.harness import ENVIRONMENT, Server, alive, children, cpu_seconds, wait_for
from tests.supervisor.http import CLOSE, HTTPClients, complete

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
        (directory / "served.py").write_text(str(options.pop("source", "")) + APP)
        words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not True]
        words += [f"--{name.replace('_', '-')}" for name, value in options.items() if value is True]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stoker", "served:app", "--bind=127.0.0.1:0", "--no-keys", *words],
                cwd=directory, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip
        self.pid = self.process.pid


Serve = Callable[..., Real]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    servers: list[Real] = []

    def started(**options: object) -> Real:
        servers.append(Real(tmp_path, **options))
        return servers[-1]

    yield started
    for server in servers:
        server.stop()


def configuration(name: str, **options: object) -> object:
    """Options of a server as a parameter; left out where its engine is not installed."""
    reason = engines.unavailable(name)
    label = "-".join([name, *(f"{key}-{value}" for key, value in options.items())])
    return pytest.param({"engine": name, **options}, id=label, marks=pytest.mark.skipif(bool(reason), reason=reason))


EVERY = [
    *map(configuration, engines.REGISTRY),
    configuration("epoll", trigger="edge"),
    configuration("epoll", reuse_port=True),
    configuration("epoll", threads=4),
]
SOME = [configuration(name) for name in ("process", "thread", "epoll", "gevent", "asyncio")]


def come_and_go(server: Real, clients: HTTPClients, times: int) -> None:
    """So many reloads, then so many workers more and less."""
    for turn in range(times):
        server.kill(signal.SIGHUP)
        server.wait_log("every worker is new", turn + 1)
        clients.more(10)
    wait_for(lambda: len(server.workers()) == 2, "the retired workers are gone")
    wanted = 2
    for step in [1, 1, -1, -1, -1, 1] * (times // 3 or 1):
        wanted += step
        server.kill(signal.SIGTTIN if step > 0 else signal.SIGTTOU)
        wait_for(lambda wanted=wanted: len(server.workers()) == wanted, f"{wanted} workers")
        clients.more(10)


def end(server: Real) -> None:
    server.kill()
    assert server.wait() == 0
    assert "has not ended in time" not in server.log(), server.log()
    assert " ERROR " not in server.log(), server.log()


@pytest.mark.parametrize("options", EVERY)
def test_nothing_is_lost(serve: Serve, options: dict[str, object]) -> None:
    server = serve(workers=2, **options).ready(2)
    with HTTPClients(server.port, keep=2, close=2) as clients:
        come_and_go(server, clients, 2)
    assert clients.failures == []
    end(server)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("options", EVERY)
def test_nothing_is_lost_by_twenty_events(
    serve: Serve, options: dict[str, object], record_property: Callable[[str, object], None]
) -> None:
    server = serve(workers=2, **options).ready(2)
    with HTTPClients(server.port, keep=4, close=4) as clients:
        come_and_go(server, clients, 21)
    assert clients.failures == []
    record_property("answers", clients.answers)
    record_property("closed while idle", clients.closed_while_idle)
    end(server)


def kill_some(server: Real, times: int) -> int:
    """Kill a worker so many times, one client asking; return how many requests were lost."""
    lost = 0
    for turn in range(times):
        victim = server.workers()[0]
        with HTTPClients(server.port, keep=0, close=1) as clients:
            clients.more(5)
            os.kill(victim, signal.SIGKILL)
            server.ready(3 + turn)
            clients.more(5)
        assert len(clients.failures) <= 1, "one client has one request inside"
        lost += len(clients.failures)
    wait_for(lambda: len(children(server.pid)) == 2, "two workers, and no zombie")
    return lost


@pytest.mark.parametrize("options", SOME)
def test_a_killed_worker_loses_what_is_inside_it_alone(serve: Serve, options: dict[str, object]) -> None:
    kill_some(serve(workers=2, **options).ready(2), 2)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("options", EVERY)
def test_twenty_killed_workers(
    serve: Serve, options: dict[str, object], record_property: Callable[[str, object], None]
) -> None:
    record_property("lost", kill_some(serve(workers=2, **options).ready(2), 20))


def tire(server: Real, times: int) -> None:
    """Until so many workers were replaced because of --max-requests."""
    with HTTPClients(server.port, keep=2, close=2) as clients:
        server.ready(2 + times)
    assert clients.failures == []
    wait_for(lambda: len(server.workers()) == 2, "two workers")
    assert server.log().count("asks to be replaced") >= times
    end(server)


@pytest.mark.parametrize("options", SOME)
def test_max_requests(serve: Serve, options: dict[str, object]) -> None:
    tire(serve(workers=2, max_requests=60, max_requests_jitter=20, **options).ready(2), 3)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("options", EVERY)
def test_twenty_tired_workers(serve: Serve, options: dict[str, object]) -> None:
    tire(serve(workers=2, max_requests=60, max_requests_jitter=20, **options).ready(2), 20)


@pytest.mark.parametrize("options", SOME)
def test_when_the_master_is_killed_all_end(serve: Serve, options: dict[str, object]) -> None:
    server = serve(workers=2, graceful_timeout=3, **options).ready(2)
    workers = server.workers()
    with HTTPClients(server.port, keep=1, close=0) as clients:
        clients.more(3)
        family = [*workers, *(child for pid in workers for child in children(pid))]
        server.kill(signal.SIGKILL)
        server.wait()
        wait_for(lambda: not any(map(alive, family)), "every process ends")


@pytest.mark.parametrize("options", EVERY)
def test_term_answers_who_is_queued(serve: Serve, options: dict[str, object]) -> None:
    server = serve(workers=1, **options).ready()
    [worker] = server.workers()
    os.kill(worker, signal.SIGSTOP)
    clients = [server.connect() for _ in range(20)]
    for client in clients:
        client.sendall(CLOSE)
    server.kill()
    server.wait_log("SIGTERM: stopping")
    os.kill(worker, signal.SIGCONT)
    for client in clients:
        answer = b""
        while more := client.recv(4096):
            answer += more
        assert complete(answer)
        client.close()
    end(server)


@pytest.mark.parametrize("options", SOME)
def test_preload(serve: Serve, options: dict[str, object]) -> None:
    server = serve(workers=2, preload=True, pid="the.pid", **options).ready(2)
    with HTTPClients(server.port, keep=1, close=1) as clients:
        server.kill(signal.SIGHUP)
        server.wait_log("every worker is new")
        clients.more(10)
    assert clients.failures == []
    assert (server.directory / "the.pid").read_text() == f"{server.pid}\n"
    end(server)


@pytest.mark.skipif(bool(engines.unavailable("gevent")), reason=engines.unavailable("gevent"))
@pytest.mark.parametrize("reuse_port", [False, True])
def test_preload_with_gevent_in_use_at_import(serve: Serve, reuse_port: bool) -> None:
    """The master is patched and has a hub, and must not notice: it forks, hears, reaps and rests as ever."""
    source = "import gevent, socket\ngevent.spawn(gevent.sleep, 0.01).join()\nsocket.socketpair()\n"
    more: dict[str, object] = {"reuse_port": True} if reuse_port else {}
    server = serve(workers=2, engine="gevent", preload=True, source=source, **more).ready(2)
    with HTTPClients(server.port, keep=1, close=1) as clients:
        server.kill(signal.SIGTTIN)
        server.ready(3)
        clients.more(10)
        server.kill(signal.SIGTTOU)
        wait_for(lambda: len(children(server.pid)) == 2, "two workers, and no zombie")
        server.kill(signal.SIGHUP)
        server.wait_log("every worker is new")
        clients.more(10)
    assert clients.failures == []
    wait_for(lambda: len(children(server.pid)) == 2, "the retired workers are gone")
    os.kill(server.workers()[0], signal.SIGKILL)
    server.ready(6)
    before = cpu_seconds(server.pid)
    time.sleep(1)  # what is measured is this time
    assert cpu_seconds(server.pid) - before < 0.1
    server.kill()
    assert server.wait() == 0
