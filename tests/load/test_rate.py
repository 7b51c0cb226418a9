"""Constant rate: requests go by the clock, and latency counts from when they were due, however the server behaves."""

from __future__ import annotations

import threading
import time

from tests.load.scripted import OK, Peer, answering, scripted, silent

from stoker.load import Plan, Result, run

STALL = 0.5  # seconds


def stalling(peer: Peer) -> None:
    """Answer at once, but the twentieth request of a connection."""
    count = 0
    while peer.request():
        count += 1
        if count == 20:
            threading.Event().wait(STALL)
        peer.send(OK)


def slow(result: Result, seconds: float) -> int:
    """How many requests took longer."""
    return sum(count for highest, count in result.histogram.buckets() if highest > seconds * 1e9)


def test_a_stall_is_seen_by_every_request_that_was_due_in_it() -> None:
    """One connection, 200 requests a second, half a second of silence: a hundred were due in it, and one saw it."""
    with scripted(stalling) as server:
        result = run(Plan(server.url, connections=1, rate=200, requests=200))
    assert result.mode == "rate"
    assert (result.requests, result.unsent) == (200, 0)
    assert result.histogram.count == 200
    assert slow(result, STALL / 2) >= 45
    assert result.latency.max >= STALL
    assert result.late >= 90


def test_closed_loop_hides_it() -> None:
    """The same server, in closed loop: it is why constant rate is there, and that both are told apart."""
    with scripted(stalling) as server:
        result = run(Plan(server.url, connections=1, requests=200))
    assert result.mode == "closed"
    assert 1 <= slow(result, STALL / 2) < 20
    assert (result.late, result.unsent) == (0, 0)


def test_the_rate_is_kept() -> None:
    with scripted(answering(OK)) as server:
        begun = time.monotonic()
        result = run(Plan(server.url, connections=4, rate=200, seconds=0.5, warm_up=0.25))
        took = time.monotonic() - begun
        assert server.requests == result.requests + result.warm_up
    assert result.requests + result.unsent + result.warm_up == 150
    assert 25 <= result.warm_up <= 60
    assert 0.45 <= result.seconds <= took - 0.2


def test_what_finds_no_connection_before_the_end_is_said_and_counted_with_its_wait() -> None:
    """The server goes silent for good: 50 requests are due, one is sent, and none is left out of the latency."""
    with scripted(silent) as server:
        result = run(Plan(server.url, connections=1, rate=100, seconds=0.5, timeout=1.0))
    assert result.requests == 0
    assert result.errors["timeout"] == 1
    assert result.unsent == 49
    assert result.histogram.count == 50
    assert result.failed


def test_a_new_connection_for_each_request_by_the_clock() -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")

    with scripted(script) as server:
        result = run(Plan(server.url, connections=3, rate=300, requests=60, close=True))
        assert result.requests == server.requests == result.opened == 60
    assert not any(result.errors.values())
    assert result.seconds >= 0.19


def test_a_connection_that_rests_and_is_closed_is_made_again() -> None:
    """The server closes after each answer without a word, between two requests: no request is lost by that."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(OK)

    with scripted(script) as server:
        result = run(Plan(server.url, connections=1, rate=20, requests=8))
    assert result.requests + result.errors["reset"] == 8
    assert result.requests >= 4
    assert result.opened >= result.requests
