"""Against Stoker itself: what the client counts is what the server has done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.apps.server import Server, serving
from tests.engines.handlers import echo
from tests.engines.harness import running

from stoker.load import Plan, run

CHUNK = b"c" * 70_000


def app(environ: dict[str, Any], start_response: Any) -> Any:
    """/ answers 13 bytes, /stream without a length, /upload with the number of bytes received."""
    path = environ["PATH_INFO"]
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter([CHUNK] * 5)
    body = b"Hello, world!"
    if path == "/upload":
        body = b"%d" % len(environ["wsgi.input"].read())
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("epoll", app) as started:
        yield started


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/", {"expect_bytes": 13}),
        ("/", {"expect_bytes": 13, "browser": True}),
        ("/", {"expect_bytes": 13, "pipeline": 16}),
        ("/", {"expect_bytes": 13, "close": True}),
        ("/", {"expect_bytes": 13, "rate": 2000.0}),
        ("/", {"method": "HEAD", "expect_bytes": 0}),
        ("/stream", {"expect_bytes": 350_000, "connections": 4}),
        ("/upload", {"method": "POST", "body": b"u" * 1_000_000, "expect_bytes": 7, "connections": 4}),
    ],
)
def test_every_answer_is_counted_once(server: Server, path: str, more: dict[str, Any]) -> None:
    before = server.row.requests
    plan = Plan(f"http://127.0.0.1:{server.address[1]}{path}", **({"connections": 16, "seconds": 0.3} | more))
    result = run(plan)
    assert not result.failed, result.details
    assert result.requests == server.row.requests - before
    assert result.histogram.count == result.requests + result.unsent


def test_so_many_requests_as_were_asked_for(server: Server) -> None:
    before = server.row.requests
    for pipeline in (1, 16):
        url = f"http://127.0.0.1:{server.address[1]}/"
        assert run(Plan(url, connections=10, requests=1001, pipeline=pipeline)).requests == 1001
    assert server.row.requests - before == 2002


def test_an_echo() -> None:
    with running("epoll", echo) as engine:
        result = run(Plan(f"tcp://127.0.0.1:{engine.address[1]}", connections=8, requests=500, size=1000))
    assert (result.requests, result.bytes) == (500, 500_000)
    assert not result.failed
