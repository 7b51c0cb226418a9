"""--preload: the application is imported once, in the master; a reload starts the master over, in its place."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.supervisor.harness import Counting, Server, alive, children, wait_for


@pytest.fixture
def app(tmp_path: Path) -> Path:
    path = tmp_path / "app"
    path.write_text("one")
    return path


@pytest.fixture
def server(tmp_path: Path, app: Path) -> Iterator[Server]:
    (tmp_path / "options").write_text("")
    server = Server(
        tmp_path, preload="true", workers=2, application=app, record=tmp_path / "record", pid="the.pid",
        options=tmp_path / "options",
    )  # fmt: skip
    yield server
    server.stop()


def imports(server: Server) -> list[int]:
    """The processes that have imported the application."""
    return [int(line.split()[0]) for line in (server.directory / "record").read_text().splitlines()]


def reloaded(server: Server, times: int = 1) -> None:
    server.wait_log("reload: every worker is new", times)


def test_the_master_alone_imports(server: Server) -> None:
    server.ready(2)
    assert imports(server) == [server.pid]
    assert server.ask()[1] == "one 0"


def test_a_reload_keeps_the_pid_the_queue_and_the_clients(server: Server, app: Path) -> None:
    server.ready(2)
    old = server.workers()
    wrong: list[str] = []
    end = threading.Event()

    def read_pid_file() -> None:
        while not end.is_set():
            text = (server.directory / "the.pid").read_text()
            if text != f"{server.pid}\n":
                wrong.append(text)
            time.sleep(0.001)

    reader = threading.Thread(target=read_pid_file)
    reader.start()
    try:
        with Counting(server) as counting:
            for turn, text in enumerate(("two", "three", "four"), 1):
                app.write_text(text)
                server.kill(signal.SIGHUP)
                reloaded(server, turn)
                counting.more()
                assert server.ask()[1] == f"{text} 0"
    finally:
        end.set()
        reader.join()
    assert wrong == []
    assert counting.failures == []
    wait_for(lambda: len(children(server.pid)) == 2, "two workers, and no zombie")
    assert not set(old) & set(server.workers())
    assert imports(server).count(server.pid) == 4, "one import in the master for each"
    server.kill()
    assert server.wait() == 0
    assert not (server.directory / "the.pid").exists()


def test_what_cannot_be_imported_is_tried_elsewhere_first(server: Server, app: Path) -> None:
    server.ready(2)
    old = sorted(server.workers())
    for turn, text in enumerate(("fail", "raise", "exit 5"), 1):
        app.write_text(text)
        server.kill(signal.SIGHUP)
        server.wait_log("reload given up: the trial ended with status", turn)
        assert sorted(server.workers()) == old
        assert server.ask()[1] == "one 0"
    os.kill(old[0], signal.SIGKILL)  # the good application is still in the master's memory
    server.ready(3)
    assert server.ask()[1] == "one 0"


def test_options_are_read_again(server: Server) -> None:
    server.ready(2)
    (server.directory / "options").write_text("threads=7\nworkers=3\n")
    server.kill(signal.SIGHUP)
    reloaded(server)
    wait_for(lambda: len(server.workers()) == 3, "three workers")
    assert server.ask()[1] == "one 7"


def test_more_and_less_survive_a_reload(server: Server) -> None:
    server.ready(2)
    server.kill(signal.SIGTTIN)
    server.ready(3)
    server.kill(signal.SIGHUP)
    reloaded(server)
    wait_for(lambda: len(server.workers()) == 3, "three workers")


def test_a_killed_old_worker_during_the_trial(server: Server, app: Path) -> None:
    server.ready(2)
    app.write_text("two")
    server.kill(signal.SIGHUP)
    os.kill(server.workers()[0], signal.SIGKILL)
    reloaded(server)
    wait_for(lambda: len(children(server.pid)) == 2, "two workers, and no zombie")
    assert {server.ask()[1] for _ in range(5)} == {"two 0"}


def test_a_newer_reload_starts_a_new_trial(server: Server, app: Path) -> None:
    server.ready(2)
    for text in ("two", "three"):
        app.write_text(text)
        server.kill(signal.SIGHUP)
    reloaded(server)
    wait_for(lambda: server.ask()[1] == "three 0", "the newest")
    wait_for(lambda: len(children(server.pid)) == 2, "two workers, and no zombie")


def test_reuse_port(tmp_path: Path, app: Path) -> None:
    server = Server(tmp_path, preload="true", workers=2, application=app, reuse_port="true")
    try:
        server.ready(2)
        with Counting(server) as counting:
            for turn in range(3):
                server.kill(signal.SIGHUP)
                reloaded(server, turn + 1)
                counting.more()
        assert counting.failures == []
    finally:
        server.stop()


def test_a_start_that_fails(tmp_path: Path, app: Path) -> None:
    app.write_text("fail")
    server = Server(tmp_path, preload="true", application=app)
    try:
        assert server.wait() == 3
        assert "it says fail" in server.log()
        assert "listening" in server.log()
    finally:
        server.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_breaks_the_import_off(tmp_path: Path, number: int) -> None:
    server = Server(tmp_path, preload="true", boot=30, pid="the.pid", bind=f"unix:{tmp_path}/s")
    try:
        server.wait_log("listening on")
        begun = time.monotonic()
        server.kill(number)
        assert server.wait() == 0
        assert time.monotonic() - begun < 5
        assert "the import of the application is broken off" in server.log()
        assert not (tmp_path / "the.pid").exists()
        assert not (tmp_path / "s").exists()
    finally:
        server.stop()


def test_a_unix_socket_is_removed_by_the_program_that_ends(tmp_path: Path, app: Path) -> None:
    server = Server(tmp_path, preload="true", application=app, bind=f"unix:{tmp_path}/s")
    try:
        server.ready()
        inode = (tmp_path / "s").stat().st_ino
        server.kill(signal.SIGHUP)
        reloaded(server)
        assert (tmp_path / "s").stat().st_ino == inode
        server.kill()
        assert server.wait() == 0
        assert not (tmp_path / "s").exists()
    finally:
        server.stop()


def test_when_the_new_master_dies_too_the_workers_drain(server: Server) -> None:
    server.ready(2)
    server.kill(signal.SIGHUP)
    reloaded(server)
    workers = server.workers()
    server.kill(signal.SIGKILL)
    server.wait()
    wait_for(lambda: not any(map(alive, workers)), "the workers end")


def test_a_signal_while_the_master_starts_over_is_not_lost(server: Server) -> None:
    server.ready(2)
    server.kill(signal.SIGHUP)
    server.wait_log("the master starts over")
    server.kill()
    assert server.wait() == 0
    assert "SIGTERM: stopping" in server.log()


def test_term_while_the_new_master_imports_drains_the_old_workers(tmp_path: Path, app: Path) -> None:
    server = Server(tmp_path, preload="true", application=app, boot=1)
    try:
        server.ready()
        [worker] = server.workers()
        server.kill(signal.SIGHUP)
        server.wait_log("the master is process", 2)
        with server.connect() as client:
            client.sendall(b"hello\n")
            server.kill()
            assert client.recv(100) == b"%d one 0\n" % worker
        assert server.wait() == 0
    finally:
        server.stop()
