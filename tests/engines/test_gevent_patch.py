"""gevent patching too late, its classic trouble, cannot happen: what a real master and its worker import when."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

from tests.apps.handlers import site_of
from tests.engines.harness import running, until

LATE = ["ssl", "threading", "queue", "asyncio", "logging", "concurrent.futures"]

MASTER = """
import os, sys

def note():  # in the parent, at each fork
    with open({notes!r}, "a") as file:
        print(*sorted(sys.modules), file=file)

os.register_at_fork(before=note)
from stoker.cli import main
sys.exit(main())
"""

APPLICATION = """
import json, sys
before = [name for name in {late!r} if name in sys.modules]
from gevent import monkey
import socket, ssl, threading, time
seen = {{
    "before": before,
    "patched": {{name: monkey.is_module_patched(name) for name in ("socket", "ssl", "threading", "time", "select")}},
    "ssl": ssl.SSLContext.__module__,
    "lock": type(threading.Lock()).__module__,
    "socket": socket.socket.__module__,
}}

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(seen).encode()]
"""


def serve_and_ask(folder: Path, *options: str) -> tuple[dict[str, Any], list[set[str]]]:
    """What the application saw when it was imported, and the master's modules at each of its forks."""
    notes = folder / "notes"
    log_file = folder / "log"
    (folder / "master.py").write_text(textwrap.dedent(MASTER.format(notes=str(notes))))
    (folder / "seeing.py").write_text(textwrap.dedent(APPLICATION.format(late=LATE)))
    command = [sys.executable, "master.py", "serve", "seeing:application", "--engine", "gevent"]
    command += ["--bind", "unix:stoker.sock", *options]
    source = str(Path(__file__).resolve().parents[2] / "src")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STOKER_")}
    environment["PYTHONPATH"] = source
    with log_file.open("w") as log:
        master = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        until(lambda: listens(folder / "stoker.sock") or master.poll() is not None, 20, log_file.read_text())
        answer = ask(folder / "stoker.sock")
        master.send_signal(signal.SIGTERM)
        assert master.wait(20) == 0, log_file.read_text()
    finally:
        if master.poll() is None:
            os.killpg(master.pid, signal.SIGKILL)
            master.wait()
    return json.loads(answer), [set(line.split()) for line in notes.read_text().splitlines()]


def listens(path: Path) -> bool:
    """Whether somebody listens there: bind(2) makes the file, but only listen(2) makes it one to connect to."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def ask(path: Path) -> bytes:
    """The body of GET /."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        data = b""
        while piece := client.recv(65536):
            data += piece
    return data.partition(b"\r\n\r\n")[2]


def test_a_worker_patches_before_the_application_is_imported(tmp_path: Path) -> None:
    seen, forks = serve_and_ask(tmp_path)
    assert seen["patched"] == dict.fromkeys(seen["patched"], True)
    assert seen["socket"] == "gevent._socket3"
    assert seen["ssl"].startswith("gevent.")
    assert seen["lock"].startswith("gevent.")
    assert forks, "the master has forked"
    for modules in forks:
        assert not modules & {*LATE, "gevent"}, "the master keeps out what must be patched first"


def test_with_preload_the_master_patches(tmp_path: Path) -> None:
    seen, forks = serve_and_ask(tmp_path, "--preload")
    assert seen["patched"] == dict.fromkeys(seen["patched"], True)
    assert seen["before"] == [] or seen["ssl"].startswith("gevent.")
    assert "gevent" in forks[-1]


def test_no_patch_leaves_the_standard_library_alone(tmp_path: Path) -> None:
    seen, _ = serve_and_ask(tmp_path, "--no-patch")
    assert seen["patched"] == dict.fromkeys(seen["patched"], False)
    assert seen["ssl"] == "ssl"
    assert seen["socket"] == "socket"


def test_a_killed_greenlet_runs_its_finally(tmp_path: Path) -> None:
    """The application may have greenlets of its own, and gevent.kill works on a connection's as on any."""
    notes = tmp_path / "notes"
    notes.touch()

    def handle(conn: Any) -> None:
        import gevent

        with notes.open("a") as file:
            try:
                me = gevent.getcurrent()
                gevent.spawn_later(0.05, me.kill)
                conn.recv()
            except gevent.GreenletExit:
                file.write("killed ")
                raise
            finally:
                file.write("finally")

    with running("gevent", site_of(handle)) as engine, engine.connect() as client:
        assert client.recv(1) == b""
        until(lambda: notes.read_text() == "killed finally")
        until(lambda: engine.row.connections == 0)


def test_blocking_calls_of_an_application_switch(tmp_path: Path) -> None:
    def handle(conn: Any) -> None:
        import queue
        import threading
        import time

        answers: queue.Queue[str] = queue.Queue()
        threading.Timer(0.3, answers.put, ["then"]).start()
        time.sleep(0.2)
        conn.send(answers.get(timeout=5).encode())

    with running("gevent", site_of(handle)) as engine:
        began = time.monotonic()
        clients = [engine.connect() for _ in range(10)]
        for client in clients:
            with client:
                assert client.recv(10) == b"then"
        assert time.monotonic() - began < 2.5
