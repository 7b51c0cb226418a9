"""Counting clients that speak HTTP/1.1, with connections of their own or kept ones."""

from __future__ import annotations

import socket
import threading

from tests.supervisor.harness import wait_for

KEEP = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"


class HTTPClients:
    """Threads that ask all the time.

    :ivar answers: complete ones
    :ivar failures: requests without an answer
    :ivar closed_while_idle: a kept connection was ended before the server can have read any of the request: the one
        race that HTTP leaves; the client asks again, as RFC 9112 section 9.3.1 lets it
    """

    def __init__(self, port: int, keep: int, close: int) -> None:
        self.answers = self.closed_while_idle = 0
        self.failures: list[str] = []
        self._port = port
        self._end = threading.Event()
        works = [self._keeping] * keep + [self._closing] * close
        self._threads = [threading.Thread(target=work) for work in works]

    def __enter__(self) -> HTTPClients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int) -> None:
        goal = self.answers + count
        wait_for(lambda: self.answers >= goal, f"{count} answers more, after {self.failures}")

    def _connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), 10)

    def _closing(self) -> None:
        while not self._end.is_set():
            try:
                with self._connect() as client:
                    client.sendall(CLOSE)
                    data = b""
                    while more := client.recv(4096):
                        data += more
                if not complete(data):
                    raise ConnectionError(f"the answer ended after {data!r}")
            except OSError as error:
                self.failures.append(f"close: {error!r}")
            else:
                self.answers += 1

    def _keeping(self) -> None:
        client: socket.socket | None = None
        while not self._end.is_set():
            fresh = client is None
            data = b""
            try:
                client = client or self._connect()
                client.sendall(KEEP)
                while not complete(data):
                    more = client.recv(4096)
                    if not more:
                        raise ConnectionError(f"the answer ended after {data!r}")
                    data += more
            except OSError as error:
                if fresh or data:
                    self.failures.append(f"keep: {error!r}")
                else:
                    self.closed_while_idle += 1
                if client is not None:
                    client.close()
                    client = None
            else:
                self.answers += 1
                if b"connection: close" in data.lower():
                    client.close()
                    client = None
        if client is not None:
            client.close()


def complete(data: bytes) -> bool:
    """Whether this is a whole response 200 with a Content-Length."""
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return False
    if not head.startswith(b"HTTP/1.1 200 "):
        raise ConnectionError(f"refused: {head!r}")
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    return len(body) == length
