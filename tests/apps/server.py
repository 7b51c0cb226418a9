"""A worker with an application of the test's own, in a child process: what the tests of HTTP and WSGI talk to."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.engines.harness import CONFIGURATIONS, URING, options, until

from stoker import log, stats, worker
from stoker.config import Config

POOLED = "epoll-pool"  # not an engine of its own: epoll with two threads
ALL = [*CONFIGURATIONS, POOLED]
INLINE = ["nonblocking", "select", "poll", "epoll", "epoll-edge", "generator", "greenlet", "asyncio", *URING]
BLOCKING = ["process", "thread", "gevent"]


def chosen(configuration: str) -> dict[str, Any]:
    """The options of a configuration's name."""
    return {"engine": "epoll", "threads": 2} if configuration == POOLED else options(configuration)


class Response:
    """One response off the wire."""

    def __init__(self, status: int, reason: str, fields: list[tuple[str, str]], body: bytes, raw: bytes) -> None:
        self.status = status
        self.reason = reason
        self.fields = fields
        self.body = body
        self.raw = raw

    def __getitem__(self, name: str) -> str | None:
        values = [value for key, value in self.fields if key.lower() == name.lower()]
        assert len(values) < 2, f"{name} twice: {self.fields}"
        return values[0] if values else None


class Client:
    """A client that shows what really comes over the wire."""

    def __init__(self, address: Any, timeout: float = 10.0) -> None:
        family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
        self.sock = socket.socket(family)
        self.sock.settimeout(timeout)
        self.sock.connect(address)
        if family == socket.AF_INET:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def _until(self, mark: bytes) -> bytes:
        while (end := self.buffer.find(mark)) < 0:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError(f"the server closed after {self.buffer!r:.300}")
            self.buffer += data
        end += len(mark)
        piece, self.buffer = self.buffer[:end], self.buffer[end:]
        return piece

    def _exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError(f"the server closed after {len(self.buffer)} of {count} bytes")
            self.buffer += data
        piece, self.buffer = self.buffer[:count], self.buffer[count:]
        return piece

    def response(self, head: bool = False) -> Response:
        """Read one response; ``head``: it answers a HEAD."""
        raw = self._until(b"\r\n\r\n")
        lines = raw[:-4].decode("latin-1").split("\r\n")
        version, status, reason = lines[0].split(" ", 2)
        assert version == "HTTP/1.1"
        fields = [(name, value) for name, _, value in (line.partition(": ") for line in lines[1:])]
        got = Response(int(status), reason, fields, b"", raw)
        if head or got.status in (204, 304) or got.status < 200:
            return got
        if got["Transfer-Encoding"] == "chunked":
            while size := int(self._until(b"\r\n"), 16):
                got.body += self._exactly(size)
                assert self._exactly(2) == b"\r\n"
            assert self._until(b"\r\n") == b"\r\n"
        elif (length := got["Content-Length"]) is not None:
            got.body = self._exactly(int(length))
        else:
            got.body = self.rest()
        return got

    def rest(self) -> bytes:
        """Everything up to the server's close."""
        with contextlib.suppress(ConnectionResetError):
            while data := self.sock.recv(65536):
                self.buffer += data
        data, self.buffer = self.buffer, b""
        return data

    def closed(self) -> bool:
        """Whether the server closes now, without another byte."""
        try:
            return self.buffer == b"" and self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def ask(
        self, target: str = "/", *fields: str, method: str = "GET", body: bytes = b"", version: str = "1.1"
    ) -> None:
        """Send one request."""
        lines = [f"{method} {target} HTTP/{version}", "Host: test", *fields]
        if body and not any(field.lower().startswith(("content-length", "transfer-encoding")) for field in fields):
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)

    def get(
        self, target: str = "/", *fields: str, method: str = "GET", body: bytes = b"", version: str = "1.1"
    ) -> Response:
        """Send one request and read its response."""
        self.ask(target, *fields, method=method, body=body, version=version)
        return self.response(method == "HEAD")


class Server:
    """A worker under test."""

    def __init__(
        self, configuration: str, address: Any, pid: int, row: Any, control: socket.socket, folder: str
    ) -> None:
        self.configuration = configuration
        self.address = address
        self.pid = pid
        self.row = row
        self.control = control
        self.folder = Path(folder)
        self.status: int | None = None
        self.heard = b""
        self.notes = Path("/dev/null")

    def client(self, timeout: float = 10.0) -> Client:
        return Client(self.address, timeout)

    def get(self, target: str = "/", *fields: str, **more: Any) -> Response:
        """One request on a connection of its own."""
        with self.client() as client:
            return client.get(target, *fields, **more)

    def tell(self, number: int) -> None:
        """A byte from the master."""
        self.control.send(bytes([number]))

    def asked_for(self) -> bytes:
        """What the worker has told the master so far."""
        with contextlib.suppress(BlockingIOError):
            self.heard += self.control.recv(64, socket.MSG_DONTWAIT)
        return self.heard

    def log(self) -> str:
        return (self.folder / "log").read_text("utf-8", "replace")

    def access(self) -> list[str]:
        return (self.folder / "access").read_text("utf-8", "replace").splitlines()

    def logs(self, text: str, timeout: float = 10.0) -> str:
        """Wait until the log holds a text; the whole log."""
        until(lambda: text in self.log(), timeout, f"the log line {text!r}")
        return self.log()

    def alive(self) -> bool:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is None

    def wait(self, timeout: float = 10.0) -> int:
        """Wait for the end of the worker; its exit status."""
        until(lambda: not self.alive(), timeout, "the worker's end")
        assert self.status is not None
        return self.status


def listener_on(path: str | None) -> tuple[socket.socket, Any]:
    if path is not None:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        sock.listen(256)
        sock.setblocking(False)
        return sock, path
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen(1024)
    sock.setblocking(False)
    return sock, sock.getsockname()


@contextlib.contextmanager
def serving(
    configuration: str, app: Any, before: Callable[[], None] | None = None, unix: bool = False, **more: Any
) -> Iterator[Server]:
    """A worker of this configuration that serves ``app`` on a loopback port; ``before`` runs in it first."""
    with tempfile.TemporaryDirectory(prefix="stoker-test-") as folder:
        listener, address = listener_on(f"{folder}/socket" if unix else None)
        row = stats.Board(1).row(0)
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                ours.close()
                status = _child(
                    folder, listener, address, row, theirs, before, {"app": app} | chosen(configuration) | more
                )
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        theirs.close()
        listener.close()
        server = Server(configuration, address, pid, row, ours, folder)
        try:
            until(lambda: row.state == stats.READY or not server.alive(), 30, "the worker's start")
            assert server.status is None, f"the worker ended at its start with {server.status}: {server.log()}"
            yield server
        finally:
            if server.alive():
                os.kill(pid, signal.SIGKILL)
                until(lambda: not server.alive(), 10, "the worker's death")
            ours.close()


def _child(
    folder: str,
    listener: socket.socket,
    address: Any,
    row: Any,
    control: socket.socket,
    before: Any,
    chosen: dict[str, Any],
) -> int:
    for fd, name in ((1, "access"), (2, "log")):
        file = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, fd)
        os.close(file)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", 1, closefd=False)  # noqa: SIM115
    logging.getLogger().handlers.clear()  # pytest's own
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    warnings.resetwarnings()  # gevent patches later than it likes: pytest has imported ssl long ago
    config = Config(log_level="debug", **chosen)
    log.setup(config)
    server = address if isinstance(address, tuple) else ("localhost", 80)
    wrapped = SimpleNamespace(
        sock=listener, server=server, address=str(address), fileno=listener.fileno, close=listener.close,
        family=listener.family, refuse_new=lambda: None,
    )  # fmt: skip
    row.pid = os.getpid()
    if before is not None:
        before()
    return worker.run(config, [wrapped], row, control)


def wait_for(path: Path, text: str = "", timeout: float = 10.0) -> str:
    """Wait until a file holds a text; its contents."""
    until(lambda: path.exists() and text in path.read_text(), timeout, f"{text!r} in {path.name}")
    return path.read_text()


def pause(seconds: float) -> None:
    """Let time pass: where that is what is tested, not a way to wait for something."""
    time.sleep(seconds)
