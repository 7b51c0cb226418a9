"""Connections on every engine: what is kept, what is closed, what is refused, and that every answer arrives."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import time

import pytest
from tests.apps.server import ALL, POOLED, Server, serving
from tests.apps.site import Site
from tests.engines.harness import until

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
LIMIT = 1000


@pytest.mark.parametrize("count", [2, 50, 200])
def test_pipelining_in_order(server: Server, count: int) -> None:
    requests = [f"GET /environ?{number} HTTP/1.1\r\nHost: test\r\n\r\n".encode() for number in range(count)]
    with server.client() as client:
        client.send(b"".join(requests))
        for number in range(count):
            assert f'"QUERY_STRING": "{number}"'.encode() in client.response().body
        client.send(b"".join(requests)[:-7])
        for number in range(count - 1):
            assert f'"QUERY_STRING": "{number}"'.encode() in client.response().body
        client.send(b"".join(requests)[-7:])
        assert f'"QUERY_STRING": "{count - 1}"'.encode() in client.response().body


def test_pipelined_responses_are_sent_together(server: Server) -> None:
    if server.configuration == POOLED:
        return  # each request is a job there, and what is ready goes out before the next one begins
    with server.client() as client:
        client.get("/")
        client.send(GET * 10)
        assert client.sock.recv(65536).count(b"HTTP/1.1 200 OK") == 10


@pytest.mark.parametrize(
    ("version", "fields", "kept", "told"),
    [
        ("1.1", [], True, None),
        ("1.1", ["Connection: close"], False, "close"),
        ("1.1", ["Connection: x, Close"], False, "close"),
        ("1.1", ["Connection: keep-alive"], True, None),
        ("1.0", [], False, "close"),
        ("1.0", ["Connection: keep-alive"], True, "keep-alive"),
    ],
)
def test_what_is_kept(server: Server, version: str, fields: list[str], kept: bool, told: str | None) -> None:
    with server.client() as client:
        response = client.get("/", *fields, version=version)
        assert response.body == b"index"
        assert response["Connection"] == told
        if kept:
            assert client.get("/", *fields, version=version).body == b"index"
        else:
            assert client.closed()


def test_a_stream_to_http_1_0_ends_with_the_connection(server: Server) -> None:
    with server.client() as client:
        response = client.get("/blocks", "Connection: keep-alive", version="1.0")
        assert response.body == b"000000000011111111112222222222"
        assert response["Connection"] == "close"
        assert response["Transfer-Encoding"] is None


def test_half_closed_clients_are_served(server: Server) -> None:
    with server.client() as client:
        client.send(GET * 3)
        client.sock.shutdown(socket.SHUT_WR)
        assert [client.response().body for _ in range(3)] == [b"index"] * 3
        assert client.closed()
    with server.client() as client:
        client.ask("/blocks?n=5&size=100000&after=0.01")
        client.sock.shutdown(socket.SHUT_WR)
        assert len(client.response().body) == 500_000
        assert client.closed()


def test_a_client_that_says_nothing(server: Server) -> None:
    with server.client() as client:
        client.sock.shutdown(socket.SHUT_WR)
        assert client.closed()
    with server.client() as client:
        client.send(b"\r\n")
        client.sock.shutdown(socket.SHUT_WR)
        assert client.closed()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 100 + b"\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01", 400),
    ],
)
def test_refusals(server: Server, request_: bytes, status: int) -> None:
    with server.client() as client:
        client.send(GET + request_ + GET)
        assert client.response().status == 200
        response = client.response()
        assert response.status == status
        assert response["Connection"] == "close"
        assert response["Content-Type"] == "text/plain; charset=utf-8"
        assert response.body.startswith(str(status).encode())
        client.sock.shutdown(socket.SHUT_WR)
        assert client.closed()


@pytest.mark.parametrize(
    ("ending", "status"), [(b"\r\n", 400), (b"Host: a\r\nContent-Length: 99999999999\r\n\r\n", 413)]
)
def test_a_refused_head_request_gets_no_body(server: Server, ending: bytes, status: int) -> None:
    with server.client() as client:
        client.send(GET + b"HEAD / HTTP/1.1\r\n" + ending)
        assert client.response().status == 200
        assert client.response(head=True).status == status
        client.sock.shutdown(socket.SHUT_WR)
        assert client.closed()


def test_an_incomplete_request(server: Server) -> None:
    with server.client() as client:
        client.send(GET[:20])
        client.sock.shutdown(socket.SHUT_WR)
        assert client.response().status == 400
        assert client.closed()


@pytest.mark.parametrize("configuration", ALL)
def test_an_error_reaches_a_client_that_is_still_sending(configuration: str) -> None:
    """It sends all before it reads: without a lingering close it would see a reset instead of the answer."""
    with serving(configuration, Site("/dev/null"), limit_request_body=LIMIT) as server:
        for fields, size in (([f"Content-Length: {20 << 20}"], 20 << 20), (["Transfer-Encoding: chunked"], 2 << 20)):
            with server.client() as client:
                chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
                client.ask("/digest", *fields, method="POST")
                client.send(chunk * (size // 65536))
                assert client.response().status == 413
        with server.client() as client:
            client.send(b"GARBAGE\r\n\r\n" + b"x" * (20 << 20))
            assert client.response().status == 400


def test_an_answer_without_a_look_at_a_long_body_arrives(server: Server) -> None:
    with server.client() as client:
        client.ask("/unread?status=403+No", method="POST", body=b"x" * (20 << 20))
        response = client.response()
        assert response.status == 403
        assert response.body == b"unread"


def test_a_field_with_an_underscore_is_left_out_and_told_once(server: Server) -> None:
    for _ in range(3):
        body = server.get("/environ", "X_Underscored: evil", "X-Underscored: good").body
        assert b'"HTTP_X_UNDERSCORED": "good"' in body
    if server.configuration != "process":  # there each connection has a process, which cannot know of the others
        assert server.logs("x_underscored").count("the field 'x_underscored' is left out") == 1


def test_underscores_refused() -> None:
    with serving("epoll", Site("/dev/null"), header_map="refuse") as server:
        assert server.get("/", "X_A: b").status == 400


def test_keep_alive_0_closes_after_each_response() -> None:
    with serving("epoll", Site("/dev/null"), keep_alive=0) as server, server.client() as client:
        assert client.get("/")["Connection"] == "close"
        assert client.closed()


def test_resets_at_any_place_are_survived(server: Server) -> None:
    for request in (
        b"",
        GET[:10],
        GET,
        GET * 20,
        b"POST /digest HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\nab",
    ):
        for _ in range(5):
            with server.client() as client:
                client.send(request)
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert server.get("/").body == b"index"


def test_many_requests_on_a_connection(server: Server) -> None:
    with server.client() as client:
        for number in range(300):
            assert client.get(f"/?{number}").body == b"index"


@pytest.mark.parametrize("configuration", ALL)
def test_the_one_that_has_been_idle_longest_makes_room(configuration: str) -> None:
    """However long the others may still be idle: the silent one has less time left, and came last."""
    with serving(configuration, Site("/dev/null"), max_connections=3) as server, contextlib.ExitStack() as stack:
        kept = [stack.enter_context(server.client()) for _ in range(2)]
        for client in kept:
            assert client.get("/").body == b"index"
            time.sleep(0.1)  # the test: one has been idle longer, by more than a turn of the loop
        silent = stack.enter_context(server.client())
        until(lambda: server.row.connections == 3)
        late = stack.enter_context(server.client())
        assert late.get("/").body == b"index"
        assert kept[0].closed()
        assert kept[1].get("/").body == b"index"
        assert silent.get("/").body == b"index"


@pytest.mark.parametrize("configuration", ALL)
def test_a_stop_gives_a_new_connection_a_moment(configuration: str) -> None:
    """Its first request is on its way; one that is idle between requests is closed at once, a silent one soon."""
    with serving(configuration, Site("/dev/null")) as server, contextlib.ExitStack() as stack:
        idle, silent, fresh = (stack.enter_context(server.client()) for _ in range(3))
        idle.get("/")
        until(lambda: server.row.connections == 3)
        server.tell(signal.SIGTERM)
        assert idle.closed()
        response = fresh.get("/")
        assert (response.body, response["Connection"]) == (b"index", "close")
        assert silent.closed()
        assert server.wait() == 0
