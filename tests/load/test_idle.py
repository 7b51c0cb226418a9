"""Connections that are held open and idle."""

from __future__ import annotations

import os
import threading

import pytest
from tests.engines.harness import until
from tests.load.scripted import OK, Peer, answering, scripted

from stoker.load import IdleError, Plan, connect_idle, run


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_they_are_used_once_held_and_let_go() -> None:
    before = open_files()
    with scripted(answering(OK)) as server:
        with connect_idle(server.url, 50) as idle:
            assert len(idle) == len(server.peers) == server.requests == 50
            assert idle.closed() == 0
            server.peers.clear()
        assert len(idle) == 0
    until(lambda: open_files() <= before, what="the descriptors closed")


def test_what_the_server_closes_is_seen() -> None:
    held = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(OK)
        held.wait(20)
        if peer.number > 3:
            peer.request()

    with scripted(script) as server, connect_idle(server.url, 10) as idle:
        assert idle.closed() == 0
        held.set()
        assert until(lambda: idle.closed() == 3)


def test_beside_traffic() -> None:
    with scripted(answering(OK)) as server:
        result = run(Plan(server.url, connections=2, requests=20, idle=30))
        assert server.requests == 50
        assert len(server.peers) == 32
    assert (result.requests, result.idle, result.idle_closed) == (20, 30, 0)
    assert result.document()["idle"] == {"opened": 30, "closed": 0}


def test_a_raw_echo() -> None:
    def script(peer: Peer) -> None:
        while data := peer.sock.recv(1000):
            peer.send(data)

    with scripted(script) as server, connect_idle(f"tcp://127.0.0.1:{server.port}", 5, size=100) as idle:
        assert len(idle) == 5


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "cannot be held idle"),
        (b"nonsense", "this is no response"),
        (b"", "no answer within 0.2 s"),
    ],
)
def test_one_that_cannot_be_held(answer: bytes, words: str) -> None:
    before = open_files()
    with (
        scripted(answering(answer)) as server,
        pytest.raises(IdleError, match=words),
        connect_idle(server.url, 3, timeout=0.2),
    ):
        pytest.fail("they are held")
    until(lambda: open_files() <= before, what="the descriptors closed")
