"""What the tests of listeners share: opening them, connecting to them, accepting from them."""

import select
import socket
from collections.abc import Callable, Iterator

import pytest

from stoker.config import Config
from stoker.net.listeners import Listener, open_listeners


def ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not ipv6(), reason="this machine has no ::1")

Open = Callable[..., list[list[Listener]]]


@pytest.fixture
def listen() -> Iterator[Open]:
    """open_listeners with options, closed at the end."""
    made: list[Listener] = []

    def opened(*bind: str, **options: object) -> list[list[Listener]]:
        sets = open_listeners(Config(bind=bind, **options))
        made.extend(listener for listeners in sets for listener in listeners)
        return sets

    yield opened
    for listener in made:
        listener.remove()
        listener.close()


def connect(listener: Listener, timeout: float = 5.0) -> socket.socket:
    """A client of this listener."""
    client = socket.socket(listener.family, socket.SOCK_STREAM)
    client.settimeout(timeout)
    try:
        client.connect(listener.sock.getsockname())
    except OSError:
        client.close()
        raise
    return client


def accept(listener: Listener) -> socket.socket:
    """The next connection of a non-blocking listener, within five seconds."""
    assert select.select([listener], [], [], 5)[0], "nobody is queued"
    sock, _ = listener.sock.accept()
    return sock


def exchange(listener: Listener) -> None:
    with connect(listener) as client, accept(listener) as server:
        client.sendall(b"ping")
        assert server.recv(4, socket.MSG_WAITALL) == b"ping"
        server.sendall(b"pong")
        assert client.recv(4, socket.MSG_WAITALL) == b"pong"
