"""The public face: what `stoker` exports, and `serve()` in a program of one's own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import stoker
from stoker.errors import ConfigError

SOURCE = Path(__file__).resolve().parents[1] / "src"


def test_the_names() -> None:
    assert set(stoker.__all__) == {"Config", "__version__", "join", "serve", "sleep", "spawn"}
    for name in stoker.__all__:
        assert getattr(stoker, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = stoker.nothing  # type: ignore[attr-defined]


def test_what_raw_handlers_use_is_imported_when_it_is_asked_for() -> None:
    code = "import sys, stoker; name = 'stoker.apps.tcp'; print(name in sys.modules, stoker.sleep, name in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.startswith("False <function sleep")
    assert run.stdout.endswith("> True\n")


def test_serve_refuses() -> None:
    with pytest.raises(ConfigError, match="nothing to serve"):
        stoker.serve()
    with pytest.raises(ConfigError, match="workers: 'x' is not a whole number"):
        stoker.serve("m:a", workers="x")
    with pytest.raises(TypeError, match="wrkers"):
        stoker.serve("m:a", wrkers=3)


def answer(path: str, process: subprocess.Popen[str]) -> bytes:
    """The answer to a request, as soon as somebody listens there."""
    deadline = time.monotonic() + 30
    while True:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(path)
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
                continue
            client.settimeout(30)
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            found = b""
            while data := client.recv(65536):
                found += data
            return found


def test_serve_an_object(tmp_path: Path) -> None:
    """The environment is not read: STOKER_ENGINE would be an error."""
    code = f"""
        import stoker

        def app(environ, start_response):
            start_response("200 OK", [("Content-Length", "5")])
            return [b"hello"]

        status = stoker.serve(app, bind="unix:{tmp_path}/s", keys=False, error_logfile="{tmp_path}/log")
        print("status", status)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "STOKER_ENGINE": "nonsense"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert answer(f"{tmp_path}/s", process).endswith(b"\r\n\r\nhello")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (output, process.returncode) == ("status 0\n", 0)
    assert "listening on" in (tmp_path / "log").read_text()
