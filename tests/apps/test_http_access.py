"""The access log, end to end."""

from __future__ import annotations

import json
import socket
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from tests.apps.server import ALL, BLOCKING, POOLED, Server, serving
from tests.apps.site import Site
from tests.engines.harness import until

SITE = Site("/dev/null")


def lines(server: Server, count: int) -> list[str]:
    until(lambda: len(server.access()) >= count, what=f"{count} access lines")
    found = server.access()
    assert len(found) == count
    return found


def entries(server: Server, count: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(server, count)]


@pytest.mark.parametrize("configuration", ALL)
def test_a_line_for_each_request(configuration: str) -> None:
    with serving(configuration, SITE, access_log=True) as server:
        with server.client() as client:
            assert client.get("/?a=b", "User-Agent: test/1", "Referer: http://r/").status == 200
            assert client.get("/raise?at=call").status == 500
        with server.client() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n" * 3)
            for _ in range(3):
                client.response()
        found = sorted(lines(server, 5))
        assert found[0].startswith("127.0.0.1 - - [")
        assert sum(line.endswith('] "GET /?a=b HTTP/1.1" 200 5 "http://r/" "test/1"') for line in found) == 1
        assert sum('"GET /raise?at=call HTTP/1.1" 500 ' in line for line in found) == 1
        assert sum(line.endswith('] "GET / HTTP/1.1" 200 5 "-" "-"') for line in found) == 3


@pytest.mark.parametrize("configuration", ALL)
def test_where_the_time_went(configuration: str) -> None:
    """Waiting for the request, in the application, writing: a slow one of each, and the others stay small."""
    with serving(configuration, SITE, access_log=True, access_log_json=True) as server:
        with server.client() as client:
            client.ask("/digest", "Content-Length: 5", method="POST")
            for byte in b"slow!":
                time.sleep(0.1)  # the test
                client.send(bytes([byte]))
            client.response()
            client.get("/sleep?for=0.5")
            client.ask("/file?times=100000")  # 25 MB
            client.buffer = client._until(b"\r\n\r\n") + client.buffer  # the application has returned
            time.sleep(0.5)  # the test
            client.response()
        waiting, sleeping, writing = entries(server, 3)
        for entry, part, least in ((waiting, "wait", 380), (sleeping, "app", 490), (writing, "write", 400)):
            assert entry[part] >= least, entry
            assert entry[part] == max(entry["wait"], entry["app"], entry["write"]), entry
        assert writing["sent"] == 25_600_000


def test_a_full_pool_is_waiting() -> None:
    with serving(POOLED, SITE, access_log=True, access_log_json=True) as server:
        clients = [server.client() for _ in range(3)]
        for client in clients:
            client.ask("/sleep?for=0.3")
        for client in clients:
            client.response()
            client.sock.close()
        waits = sorted(entry["wait"] for entry in entries(server, 3))
        assert waits[1] < 250 <= waits[2]


@pytest.mark.parametrize("configuration", ["epoll", "thread"])
def test_atoms(configuration: str) -> None:
    form = (
        "%(h)s|%(l)s|%(u)s|%(m)s|%(U)s|%(q)s|%(H)s|%(s)s|%(B)s|%(b)s|%(f)s|%(a)s|%({x-a}i)s|%({x-page}o)s|"
        "%({REMOTE_ADDR}e)s|%(r)s|%(p)s|%(T)s|%%"
    )
    with serving(configuration, SITE, access_log=True, access_logformat=form) as server:
        server.get(
            "/status?status=404+No&body=",
            "X-A: one",
            "Authorization: Basic dXNlcjpwYXNz",
            "User-Agent: ua",
            method="PUT",
        )
        (line,) = lines(server, 1)
        assert line == (
            "127.0.0.1|-|user|PUT|/status|status=404+No&body=|HTTP/1.1|404|0|-|-|ua|one|status|127.0.0.1|"
            f"PUT /status?status=404+No&body= HTTP/1.1|<{server.pid}>|0|%"
        )


@pytest.mark.parametrize("json_", [False, True])
def test_nothing_from_outside_forges_a_line(json_: bool) -> None:
    with serving("epoll", SITE, access_log=True, **({"access_log_json": True} if json_ else {})) as server:
        with server.client() as client:
            client.send(
                b'GET /%0a%22 HTTP/1.1\r\nHost: a\r\nUser-Agent: "\x85\xe2\x80\xae\\" 200 0\r\nReferer: \xff\r\n\r\n'
            )
            client.response()
        (line,) = lines(server, 1)
        assert line.isascii()
        assert line.isprintable()
        if json_:
            assert json.loads(line)["target"] == "/%0a%22"
        else:
            assert line.count('"') == 6


@pytest.mark.parametrize("configuration", ALL)
def test_a_client_that_left_has_its_line(configuration: str) -> None:
    with serving(configuration, SITE, access_log=True, access_log_json=True) as server:
        client = server.client()
        client.ask("/blocks?n=10000&size=100000&after=0.001")
        client._until(b"\r\n\r\n")
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sock.close()
        (entry,) = entries(server, 1)
        assert entry["status"] == 200
        assert entry["sent"] < 10_000 * 100_000


@pytest.mark.parametrize("configuration", [*BLOCKING, "epoll"])
def test_off_there_is_none(configuration: str, tmp_path: Path) -> None:
    def no_clock() -> None:
        """Without a log and a limit nobody asks the time on account of a request."""
        from types import SimpleNamespace

        from stoker.apps import wsgi

        wsgi.time = SimpleNamespace()  # type: ignore[assignment]

    with serving(configuration, SITE, before=no_clock) as server:
        assert server.get("/").body == b"index"
        assert server.get("/blocks").status == 200
        assert server.access() == []
