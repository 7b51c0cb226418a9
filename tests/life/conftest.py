"""`python -m stoker` as a user starts it, on every engine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.apps.server import chosen
from tests.supervisor.harness import ENVIRONMENT, Server

APP = """
import os

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter([b"one ", b"two"])
    body = b"%d %s" % (os.getpid(), environ["wsgi.input"].read())
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""


class Real(Server):
    """A master with workers that serve an application given as text, options as keywords."""

    def __init__(self, directory: Path, app: str = APP, **options: Any) -> None:
        self.directory = directory
        self.log_path = directory / "log"
        (directory / "served.py").write_text(app)
        words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not True]
        words += [f"--{name.replace('_', '-')}" for name, value in options.items() if value is True]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stoker", "served:app", "--bind=127.0.0.1:0", "--no-keys", *words],
                cwd=directory,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        self.pid = self.process.pid

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Real]]:
    """Start a server of a configuration with so many workers; it is ended with the test."""
    servers: list[Real] = []

    def started(configuration: str, workers: int = 1, **options: Any) -> Real:
        server = Real(tmp_path, workers=workers, **chosen(configuration), **options)
        servers.append(server)
        server.ready(workers)
        return server

    yield started
    for server in servers:
        server.stop()
