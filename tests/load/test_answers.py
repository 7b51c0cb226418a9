"""What a server may answer, and what it may not: against servers whose every byte the test writes."""

from __future__ import annotations

import threading

import pytest
from tests.engines.harness import until
from tests.load.scripted import OK, Peer, answering, scripted, silent

from stoker.load import Plan, run

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\nA;note=1\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
)
NO_ERRORS = {"connect": 0, "reset": 0, "timeout": 0, "framing": 0, "status": 0, "body": 0}


@pytest.mark.parametrize(
    ("answer", "size"),
    [
        (OK, 2),
        (CHUNKED, 15),
        (b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", 0),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 0),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 0),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc", 3),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK, 2),
        (b"HTTP/1.1 200 OK\r\nEmpty:\r\nContent-Length:\t2 \t\r\nX: \xe9\r\n\r\nok", 2),
    ],
)
@pytest.mark.parametrize("split", [False, True])
def test_an_answer_is_read_whole_however_it_arrives(answer: bytes, size: int, split: bool) -> None:
    pieces = [answer[place : place + 1] for place in range(len(answer))] if split else [answer]
    with scripted(answering(*pieces)) as server:
        result = run(Plan(server.url, connections=2, requests=10, expect_bytes=size))
        assert result.requests == server.requests == 10
    assert result.errors == NO_ERRORS
    assert result.bytes == 10 * len(answer)
    assert result.opened == 2
    assert not result.failed


@pytest.mark.parametrize("place", range(1, len(CHUNKED), 7))
def test_a_chunked_answer_in_two_pieces(place: int) -> None:
    halves = CHUNKED[:place], CHUNKED[place:]
    go_on = threading.Event()

    def script(peer: Peer) -> None:
        while peer.request():
            peer.send(halves[0])
            go_on.wait(0.01)
            peer.send(halves[1])

    with scripted(script) as server:
        result = run(Plan(server.url, connections=1, requests=2, expect_bytes=15))
    assert (result.requests, result.errors) == (2, NO_ERRORS)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"220 mail.example ESMTP\r\n", "this is no response of HTTP/1.1: b'220 mail"),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "end with LF alone"),
        (b"HTTP/2 200\r\nContent-Length: 2\r\n\r\nok", "no status line"),
        (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", "no status line"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", "Content-Length twice"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", "Content-Length: b'+2'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", "no header field"),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\nContent-Length: 2\r\n\r\nok", "no header field: b' folded'"),
        (b"HTTP/1.1 200 OK\r\nA: \x00\r\nContent-Length: 2\r\n\r\nok", "no header field"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n", "both Content-Length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "Transfer-Encoding: b'gzip'"),
        (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "in HTTP/1.0"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "101 Switching Protocols"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "a chunk's size is b'xyz'"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n", "goes on after its size"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 5000, "a line longer than"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nno field\r\n\r\n", "no trailer field"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"a" * 70000, "a head longer than"),
    ],
)
def test_what_is_no_answer_is_an_error_that_says_why(answer: bytes, words: str) -> None:
    with scripted(answering(answer)) as server:
        result = run(Plan(server.url, connections=1, requests=1, timeout=5))
    assert result.errors == NO_ERRORS | {"framing": 1}
    assert words in result.details["framing"]
    assert result.requests == 0
    assert result.failed


def test_bytes_that_nothing_was_asked_for() -> None:
    with scripted(answering(OK + b"HTTP/1.1 200 OK\r\n")) as server:
        result = run(Plan(server.url, connections=1, requests=1))
    assert result.requests == 1
    assert result.errors["framing"] == 1
    assert "that nothing was asked for: b'HTTP/1.1" in result.details["framing"]


@pytest.mark.parametrize("answer", [OK[:-1], OK[:20], CHUNKED[:-1], CHUNKED[:60]])
def test_an_answer_that_is_cut_off(answer: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(answer)

    with scripted(script) as server:
        result = run(Plan(server.url, connections=1, requests=1))
    assert result.errors == NO_ERRORS | {"framing": 1}
    assert result.details["framing"] == "the stream ended in the middle of an answer"


def test_the_end_of_the_stream_ends_an_answer_that_has_no_length() -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        peer.send(b"x" * 100_000)

    with scripted(script) as server:
        result = run(Plan(server.url, connections=2, requests=6, expect_bytes=100_000))
    assert (result.requests, result.errors, result.opened) == (6, NO_ERRORS, 6)


def test_a_reset_and_a_silent_close_are_counted_apart_from_answers() -> None:
    def script(peer: Peer) -> None:
        peer.request()
        if peer.number == 1:
            peer.reset()
        elif peer.number > 2:
            while True:
                peer.send(OK)
                if not peer.request():
                    break

    with scripted(script) as server:
        result = run(Plan(server.url, connections=1, requests=5))
    assert result.errors == NO_ERRORS | {"reset": 2}
    assert result.details["reset"] in ("Connection reset by peer", "Broken pipe")
    assert result.requests == 3
    assert result.opened == 3


def test_an_answer_that_does_not_come_is_given_up() -> None:
    with scripted(silent) as server:
        result = run(Plan(server.url, connections=2, requests=2, timeout=0.2))
    assert result.errors == NO_ERRORS | {"timeout": 2}
    assert result.details["timeout"] == "no answer within 0.2 s"
    assert result.latency.p50 >= 0.2  # it counts with the time that it was waited for


def test_pipelined_answers_are_counted_one_by_one() -> None:
    def script(peer: Peer) -> None:
        while True:
            for _ in range(4):
                if not peer.request():
                    return
            peer.send(OK * 3 + OK[:-1])
            peer.send(OK[-1:])

    with scripted(script) as server:
        result = run(Plan(server.url, connections=2, requests=40, pipeline=4))
        assert result.requests == server.requests == 40
    assert result.errors == NO_ERRORS


def test_what_was_pipelined_behind_a_last_answer_is_sent_again() -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")

    with scripted(script) as server:
        result = run(Plan(server.url, connections=1, requests=6, pipeline=3))
        assert result.requests == server.requests == 6
    assert (result.errors, result.opened) == (NO_ERRORS, 6)


def test_wrong_status_and_wrong_length_are_errors() -> None:
    with scripted(answering(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")) as server:
        result = run(Plan(server.url, connections=1, requests=3, expect_bytes=5))
        assert result.errors == NO_ERRORS | {"status": 3, "body": 3}
        assert result.details["status"] == "an answer with status 404"
        assert result.details["body"] == "a body of 2 bytes, where 5 were expected"
        assert run(Plan(server.url, connections=1, requests=3, expect=404)).errors == NO_ERRORS


def test_a_head_has_no_body() -> None:
    with scripted(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")) as server:
        result = run(Plan(server.url, connections=1, requests=3, method="HEAD"))
    assert (result.requests, result.errors) == (3, NO_ERRORS)


def test_a_body_is_sent_while_the_server_answers_already() -> None:
    """A server that answers before it has read the request: the client must read, and send on."""
    body = b"b" * 8_000_000
    read = []

    def script(peer: Peer) -> None:
        while True:
            while b"\r\n\r\n" not in peer.buffer:
                if not peer._more():
                    return
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
            read.append(len(peer.request()))
            if not read[-1]:
                return
            peer.send(b"ok")

    with scripted(script) as server:
        plan = Plan(server.url, connections=1, requests=2, method="POST", body=body)
        result = run(plan)
    assert (result.requests, result.errors) == (2, NO_ERRORS)
    assert read[:2] == [len(plan.message())] * 2


def test_an_answer_before_the_end_of_the_request_leaves_the_connection_usable() -> None:
    def script(peer: Peer) -> None:
        while True:
            while b"\r\n\r\n" not in peer.buffer:
                if not peer._more():
                    return
            peer.send(OK)
            if not peer.request():
                return

    with scripted(script) as server:
        result = run(Plan(server.url, connections=1, requests=3, method="PUT", body=b"b" * 4_000_000))
        until(lambda: server.requests == 3, what="the third request, whole")
    assert (result.requests, result.errors, result.opened) == (3, NO_ERRORS, 1)


def test_what_is_sent_is_what_was_asked_for() -> None:
    seen = []

    def script(peer: Peer) -> None:
        while request := peer.request():
            seen.append(request)
            peer.send(OK)

    with scripted(script) as server:
        plan = Plan(f"{server.url}a/b?c=d", requests=1, connections=1, fields=(("X-One", "1"), ("Host", "other")))
        run(plan)
        run(Plan(server.url, requests=1, connections=1, browser=True))
        run(Plan(server.url, requests=1, connections=1, method="POST", close=True))
        host = f"127.0.0.1:{server.port}".encode()
    assert seen[0] == b"GET /a/b?c=d HTTP/1.1\r\nX-One: 1\r\nHost: other\r\n\r\n"
    assert len(seen[1][:-4].split(b"\r\n")) == 12  # the request line and eleven fields
    assert seen[2] == b"POST / HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def test_a_connection_for_each_request_and_addresses_that_vary() -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")

    with scripted(script) as server:
        result = run(Plan(server.url, connections=4, requests=80, close=True))
        assert result.requests == server.requests == result.opened == 80
        assert len({address for address, _ in server.peers}) == 64
    assert result.errors == NO_ERRORS


def test_ipv6() -> None:
    with scripted(answering(OK), "::1") as server:
        for close in (False, True):
            result = run(Plan(f"http://[::1]:{server.port}/", connections=2, requests=4, close=close))
            assert (result.requests, result.errors) == (4, NO_ERRORS)


def test_echo() -> None:
    def script(peer: Peer) -> None:
        while data := peer.sock.recv(1000):
            peer.send(data)

    with scripted(script) as server:
        url = f"tcp://127.0.0.1:{server.port}"
        for plan in (
            Plan(url, connections=2, requests=20, size=10),
            Plan(url, connections=2, requests=20, size=300_000),
            Plan(url, connections=1, requests=20, size=64, pipeline=10),
            Plan(url, connections=2, requests=4, size=64, close=True),
        ):
            result = run(plan)
            assert (result.requests, result.errors) == (plan.requests, NO_ERRORS)
            assert result.bytes == plan.requests * plan.size


def test_an_echo_that_differs() -> None:
    def script(peer: Peer) -> None:
        data = peer.sock.recv(64)
        peer.send(data[:40])
        peer.send(bytes(24))

    with scripted(script) as server:
        result = run(Plan(f"tcp://127.0.0.1:{server.port}", connections=1, requests=1))
    assert result.errors == NO_ERRORS | {"framing": 1}
    assert "the echo differs from what was sent" in result.details["framing"]
