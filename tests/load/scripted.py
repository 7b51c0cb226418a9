"""A server whose every byte the test writes: a thread for each connection, on raw sockets."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Peer:
    """One accepted connection, as the script of its server sees it."""

    def __init__(self, sock: socket.socket, number: int, server: Scripted) -> None:
        self.sock = sock
        self.number = number
        self.server = server
        self.buffer = b""

    def request(self) -> bytes:
        """Read one request, body and all; b"" when the client has closed."""
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            if not self._more():
                return b""
        head = self.buffer[:end].lower()
        size = end + 4
        if b"content-length: " in head:
            size += int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(self.buffer) < size:
            if not self._more():
                return b""
        found, self.buffer = self.buffer[:size], self.buffer[size:]
        self.server.count()
        return found

    def _more(self) -> bool:
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            return False
        self.buffer += data
        return bool(data)

    def send(self, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.sock.sendall(data)

    def reset(self) -> None:
        """End the connection by RST: SO_LINGER with 0 seconds (socket(7))."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Scripted:
    """A server that runs a script for each connection."""

    def __init__(self, script: Callable[[Peer], None], address: str) -> None:
        self.script = script
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.listener = socket.create_server((address, 0), family=family, backlog=1024)
        self.port = self.listener.getsockname()[1]
        self.requests = 0
        self.peers: list[tuple[str, int]] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept)]
        self._socks: list[socket.socket] = []
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def count(self) -> None:
        with self._lock:
            self.requests += 1

    def _accept(self) -> None:
        while True:
            try:
                sock, peer = self.listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socks.append(sock)
            self.peers.append(peer)
            thread = threading.Thread(target=self._serve, args=(Peer(sock, len(self.peers), self),))
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: Peer) -> None:
        with peer.sock, contextlib.suppress(OSError):
            self.script(peer)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in self._socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()


@contextlib.contextmanager
def scripted(script: Callable[[Peer], None], address: str = "127.0.0.1") -> Iterator[Scripted]:
    """A server that runs `script(peer)` in a thread for each connection, and closes it at the script's end."""
    server = Scripted(script, address)
    try:
        yield server
    finally:
        server.close()


def silent(peer: Peer) -> None:
    """A script that reads, and answers nothing."""
    while peer.request():
        pass


def answering(*answers: bytes) -> Callable[[Peer], None]:
    """A script that answers every request with the same bytes, each piece in a send of its own."""

    def script(peer: Peer) -> None:
        while peer.request():
            for answer in answers:
                peer.send(answer)

    return script
