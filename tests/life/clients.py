"""Clients that count: of each request they know what became of it, and they try nothing a second time."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType

KEEP = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
PATIENCE = 20.0  # seconds for an answer; more is a loss


@dataclass
class Counts:
    """What became of the requests.

    :ivar answered: with a whole 200
    :ivar refused: the connection was not accepted
    :ivar raced: a connection that had served before was closed before a byte of the answer: the one race of HTTP/1.1
    :ivar lost: everything else, with what happened
    """

    answered: int = 0
    refused: int = 0
    raced: int = 0
    lost: list[str] = field(default_factory=list)


class Clients:
    """``keep`` clients that keep their connection as long as they may, and ``close`` that use one for each request."""

    def __init__(self, address: tuple[str, int], keep: int, close: int) -> None:
        self.address = address
        self.counts = Counts()
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(number < keep,)) for number in range(keep + close)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int, patience: float = 60.0) -> None:
        """Wait for so many answers more."""
        goal = self.counts.answered + count
        deadline = time.monotonic() + patience
        while self.counts.answered < goal:
            assert time.monotonic() < deadline, f"{count} answers more did not come: {self.counts}"
            time.sleep(0.005)

    def gone(self, patience: float = 60.0) -> None:
        """Wait until every client has been refused: the server is away."""
        deadline = time.monotonic() + patience
        while any(thread.is_alive() for thread in self._threads):
            assert time.monotonic() < deadline, f"the server is still there: {self.counts}"
            time.sleep(0.01)

    def _work(self, keep: bool) -> None:
        sock: socket.socket | None = None
        while not self._end.is_set():
            fresh = sock is None
            if sock is None:
                try:
                    sock = socket.create_connection(self.address, PATIENCE)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                except OSError as error:
                    self._count("refused" if isinstance(error, ConnectionRefusedError) else f"connect: {error!r}")
                    return  # the server is gone, or should not be
            outcome, kept = ask(sock, keep, fresh)
            self._count(outcome)
            if not kept:
                sock.close()
                sock = None
        if sock is not None:
            sock.close()

    def _count(self, outcome: str) -> None:
        with self._lock:
            counts = self.counts
            if outcome in ("answered", "refused", "raced"):
                setattr(counts, outcome, getattr(counts, outcome) + 1)
            else:
                counts.lost.append(outcome)


def ask(sock: socket.socket, keep: bool, fresh: bool) -> tuple[str, bool]:
    """One request: what became of it, and whether the connection is kept."""
    data = b""
    try:
        sock.sendall(KEEP if keep else CLOSE)
        while not (length := whole(data)):
            piece = sock.recv(65536)
            if not piece:
                raise EOFError("the end of the stream")
            data += piece
    except (OSError, EOFError) as error:
        if not data and not fresh and not isinstance(error, TimeoutError):
            return "raced", False
        return f"{'keep' if keep else 'close'}, {'new' if fresh else 'used'}: {error!r} after {data!r}", False
    if not data.startswith(b"HTTP/1.1 200 ") or len(data) != length:
        return f"not what was asked for: {data!r}", False
    return "answered", keep and b"\r\nConnection: close\r\n" not in data


def whole(data: bytes) -> int:
    """The length of the response that ``data`` begins with; 0 while it is not whole."""
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return 0
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return len(head) + 4 + length if len(body) >= length else 0
