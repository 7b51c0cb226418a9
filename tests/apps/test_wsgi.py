"""WSGI on every engine: PEP 3333 to the letter."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import struct
import uuid
from pathlib import Path
from typing import Any

import pytest
from tests.apps.server import BLOCKING, POOLED, Server, serving, wait_for
from tests.apps.site import BAD, Site
from tests.engines.harness import until


def key() -> str:
    """A name for one request in the notes and the log."""
    return uuid.uuid4().hex[:12]


def environ_of(server: Server, target: str = "/environ", *fields: str, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(server.get(target, *fields, **more).body)
    return found


# The environ ---------------------------------------------------------------------------------------------------------


def test_environ(server: Server) -> None:
    environ = environ_of(
        server, "/environ/a?b=c&d=%20", "X-A: 1", "X-A: 2", "Cookie: a=b", "Cookie: c=d", "Content-Type: t/x"
    )
    assert environ["REQUEST_METHOD"] == "GET"
    assert environ["SCRIPT_NAME"] == ""
    assert environ["PATH_INFO"] == "/environ/a"
    assert environ["QUERY_STRING"] == "b=c&d=%20"
    assert environ["RAW_URI"] == "/environ/a?b=c&d=%20"
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert environ["SERVER_NAME"] == "127.0.0.1"
    assert environ["SERVER_PORT"] == str(server.address[1])
    assert environ["REMOTE_ADDR"] == "127.0.0.1"
    assert environ["HTTP_HOST"] == "test"
    assert environ["HTTP_X_A"] == "1, 2"
    assert environ["HTTP_COOKIE"] == "a=b; c=d"
    assert environ["CONTENT_TYPE"] == "t/x"
    assert "HTTP_CONTENT_TYPE" not in environ
    assert "CONTENT_LENGTH" not in environ
    assert environ["wsgi.version"] == [1, 0]
    assert environ["wsgi.url_scheme"] == "http"
    assert environ["wsgi.input_terminated"] is True
    assert environ["wsgi.run_once"] is False


def test_threads_and_processes_are_told_truly(server: Server) -> None:
    environ = environ_of(server)
    assert environ["wsgi.multithread"] is (server.configuration in ("thread", "gevent", POOLED))
    assert environ["wsgi.multiprocess"] is (server.configuration == "process")


def test_paths_are_tunnelled_as_latin_1(server: Server) -> None:
    environ = environ_of(server, "/%E2%82%AC%2f%00+?%E2")
    assert environ["PATH_INFO"].encode("latin-1") == "/\u20ac/\0+".encode()
    assert environ["QUERY_STRING"] == "%E2"


def test_field_values_are_latin_1(server: Server) -> None:
    with server.client() as client:
        client.send(b"GET /environ HTTP/1.1\r\nHost: test\r\nX-A: caf\xe9 \xe2\x82\xac\r\n\r\n")
        assert json.loads(client.response().body)["HTTP_X_A"].encode("latin-1") == b"caf\xe9 \xe2\x82\xac"


def test_absolute_form_and_options_star(server: Server) -> None:
    environ = environ_of(server, "http://other:81/environ?q")
    assert (environ["HTTP_HOST"], environ["PATH_INFO"], environ["QUERY_STRING"]) == ("other:81", "/environ", "q")
    assert server.get("*", method="OPTIONS").body == b"index"


def test_an_environ_is_not_shared(server: Server) -> None:
    """The next request of the same head finds a fresh one."""
    with server.client() as client:
        first = json.loads(client.get("/environ?a").body)
        second = json.loads(client.get("/environ?b").body)
    assert (first.pop("QUERY_STRING"), second.pop("QUERY_STRING")) == ("a", "b")
    assert {k: v for k, v in first.items() if "URI" not in k} == {k: v for k, v in second.items() if "URI" not in k}


def test_root_path() -> None:
    with serving("epoll", Site("/dev/null"), root_path="/app") as server:
        environ = environ_of(server, "/app/environ")
        assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/app", "/environ")
        environ = environ_of(server, "/application")
        assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/app", "/application")
        assert server.get("/app").body == b"index"


def test_unix_socket() -> None:
    with serving("epoll", Site("/dev/null"), unix=True) as server:
        environ = environ_of(server)
        assert (environ["SERVER_NAME"], environ["SERVER_PORT"], environ["REMOTE_ADDR"]) == ("localhost", "80", "")


@pytest.mark.parametrize(
    ("target", "more"),
    [
        ("/valid", {}),
        ("/valid?q", {"method": "HEAD"}),
        ("/valid", {"method": "POST", "body": b"a body"}),
        ("/valid", {"method": "DELETE", "version": "1.0"}),
        ("http://other/valid", {}),
    ],
)
def test_wsgiref_validate(server: Server, target: str, more: dict[str, Any]) -> None:
    response = server.get(target, **more)
    assert response.status == 200
    assert response["X-Method"] == more.get("method", "GET")
    assert response.body == (b"" if more.get("method") == "HEAD" else b"valid " + more.get("body", b""))


# start_response, write, the iterable ---------------------------------------------------------------------------------


def test_write(server: Server) -> None:
    response = server.get("/write")
    assert response.body == b"one two three four"
    assert response["Transfer-Encoding"] == "chunked"


def test_a_stream_is_chunked_and_each_block_goes_out_at_once(server: Server) -> None:
    with server.client(timeout=2) as client:
        client.ask("/blocks?after=0.3&n=2")
        client._until(b"0000000000\r\n")
        assert client.buffer == b""
        assert client._until(b"\r\n0\r\n\r\n") == b"a\r\n1111111111\r\n0\r\n\r\n"


def test_a_list_has_a_length(server: Server) -> None:
    response = server.get("/nothing?what=list")
    assert (response.status, response.body, response["Content-Length"]) == (200, b"", "0")
    assert server.get("/")["Content-Length"] == "5"


def test_exc_info_replaces_a_response_that_has_not_begun(server: Server) -> None:
    response = server.get("/replaced")
    assert (response.status, response.reason, response.body) == (503, "Replaced", b"replaced")
    assert response["X-Second"] == "yes"
    assert response["X-First"] is None


def test_exc_info_is_raised_when_the_head_is_out(server: Server) -> None:
    before = server.log().count("ValueError: told by exc_info")
    with server.client() as client:
        client.ask("/replaced?late")
        assert b"already here" in client.rest()
    until(lambda: server.log().count("ValueError: told by exc_info") > before, what="the traceback")


@pytest.mark.parametrize("at", ["call", "started", "iterating"])
def test_a_failure_is_a_500_with_its_traceback(server: Server, at: str) -> None:
    name = key()
    response = server.get(f"/raise?at={at}&key={name}")
    assert response.status == 500
    assert response["Connection"] == "close"
    where = {"call": "in the call", "started": "after start_response", "iterating": "while iterating"}[at]
    log = server.logs(f"RuntimeError: raised {where} {name}")
    assert f"GET /raise?at={at}&key={name} failed" in log
    assert "site.py" in log


def test_a_failure_in_the_middle_cuts_the_response_off(server: Server) -> None:
    name = key()
    with server.client() as client:
        client.ask(f"/raise?at=later&key={name}")
        text = client.rest()
    assert b"first" in text
    assert not text.endswith(b"0\r\n\r\n")
    server.logs(f"RuntimeError: raised while iterating {name}")
    wait_for(server.notes, f"closed {name} same {name}")


@pytest.mark.parametrize("how", ["exit", "interrupt", "generator"])
def test_what_is_no_exception_does_not_end_the_server(server: Server, how: str) -> None:
    assert server.get(f"/exit?how={how}").status == 500
    assert server.get("/").body == b"index"


@pytest.mark.parametrize("what", ["no-start", "none", "text", "texts", "numbers", "bytearray"])
def test_no_proper_response_is_a_500(server: Server, what: str) -> None:
    assert server.get(f"/nothing?what={what}").status == 500
    server.logs(f"GET /nothing?what={what} failed")


def test_start_response_twice(server: Server) -> None:
    assert server.get("/twice").status == 500
    server.logs("start_response was called twice without exc_info")


@pytest.mark.parametrize("what", BAD)
def test_what_may_not_go_on_the_wire_is_a_500(server: Server, what: str) -> None:
    with server.client() as client:
        client.ask(f"/bad?what={what}")
        text = client.rest()
    assert text.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert text.count(b"HTTP/1.1") == 1
    assert b"X-A" not in text
    assert b"Set-Cookie" not in text
    assert b"Connection: close\r\n" in text
    assert "stoker.errors.ApplicationError: " in server.logs(f"GET /bad?what={what} failed")


def test_more_than_the_length_is_cut(server: Server) -> None:
    name = key()
    with server.client() as client:
        assert client.get(f"/blocks?length=15&key={name}").body == b"000000000011111"
        assert client.get("/").body == b"index"
        assert client.get("/status?status=200+OK&length=2").body == b"bo"
        assert client.get("/").body == b"index"
    server.logs(f"key={name}: the application gave more than its Content-Length of 15; it was cut")
    wait_for(server.notes, f"closed {name} same {name}")


@pytest.mark.parametrize("more", ["", "&stream"])
def test_less_than_the_length_closes(server: Server, more: str) -> None:
    with server.client() as client:
        client.ask(f"/status?status=200+OK&length=10{more}")
        text = client.rest()
    assert b"Content-Length: 10\r\n" in text
    assert text.endswith(b"\r\n\r\nbody")
    server.logs("the application gave 4 bytes, its Content-Length said 10; the connection is closed")


@pytest.mark.parametrize(
    ("target", "method"),
    [
        ("/status?status=204+No+Content", "GET"),
        ("/status?status=304+Not+Modified", "GET"),
        ("/status?status=204+No+Content&stream", "GET"),
        ("/status?status=304+Not+Modified&stream&length=4", "GET"),
        ("/status?status=200+OK", "HEAD"),
        ("/status?status=200+OK&stream", "HEAD"),
        ("/status?status=200+OK&length=4", "HEAD"),
        ("/raise?at=call", "HEAD"),
        ("/file", "HEAD"),
    ],
)
def test_no_body_where_there_may_be_none(server: Server, target: str, method: str) -> None:
    with server.client() as client:
        first = client.get(target, method=method)
        assert first.body == b""
        if first.status == 500:
            assert client.closed()
            return
        assert client.get("/").body == b"index"
    assert first["Transfer-Encoding"] is None
    assert first.status != 204 or first["Content-Length"] is None


def test_connection_close_of_the_application(server: Server) -> None:
    with server.client() as client:
        assert client.get("/status?status=200+OK&close")["Connection"] == "close"
        assert client.closed()


# Closed on every path ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "method"),
    [
        ("/blocks?key=", "GET"),
        ("/blocks?n=0&key=", "GET"),
        ("/blocks?key=", "HEAD"),
        ("/raise?at=iterating&key=", "GET"),
    ],
)
def test_the_iterable_is_closed(server: Server, target: str, method: str) -> None:
    name = key()
    server.get(f"{target}{name}", method=method)
    notes = wait_for(server.notes, f"closed {name}")
    assert notes.count(f"closed {name} same {name}") == 1, "once, in its thread and its context"


@pytest.mark.parametrize("how", ["close", "reset"])
def test_the_iterable_is_closed_when_the_client_is_gone(server: Server, how: str) -> None:
    name = key()
    client = server.client()
    client.ask(f"/blocks?n=100000&size=10000&after=0.001&key={name}")
    client._until(b"\r\n\r\n")
    if how == "reset":
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.sock.close()
    notes = wait_for(server.notes, f"closed {name}")
    assert notes.count(f"closed {name} same {name}") == 1
    assert f"{name} failed" not in server.log(), "a client that leaves is no fault of the application"
    assert server.get("/").body == b"index"


# wsgi.file_wrapper ---------------------------------------------------------------------------------------------------

DATA = bytes(range(256)) * 1000


def sent_by_the_kernel(server: Server, target: str) -> tuple[Any, bool]:
    """The response, and whether sendfile(2) was called by the time its file was closed and another request served."""
    before = server.notes.read_text().count("sendfile")
    with server.client() as client:
        response = client.get(target)
        client.get("/")  # what the engine notes after a send is noted by now
    return response, server.notes.read_text().count("sendfile") > before


@pytest.mark.parametrize("kind", ["regular", "named", "raw"])
def test_a_file_goes_by_sendfile(server: Server, kind: str) -> None:
    name = key()
    response, kernel = sent_by_the_kernel(server, f"/file?kind={kind}&key={name}")
    assert response.body == DATA
    assert response["Content-Length"] == str(len(DATA))
    assert kernel
    wait_for(server.notes, f"closed {name}")


def test_a_file_goes_from_where_it_stands(server: Server) -> None:
    response, kernel = sent_by_the_kernel(server, "/file?seek=1000")
    assert response.body == DATA[1000:]
    assert kernel


@pytest.mark.parametrize("kind", ["memory", "gzip"])
def test_what_is_no_regular_file_is_read(server: Server, kind: str) -> None:
    """The descriptor of a GzipFile holds something else than the file reads."""
    response, kernel = sent_by_the_kernel(server, f"/file?kind={kind}")
    assert response.body == DATA
    assert not kernel


def test_a_file_and_its_length(server: Server) -> None:
    assert server.get("/file?length=1000").body == DATA[:1000]
    with server.client() as client:
        client.ask(f"/file?length={len(DATA) + 1}")
        assert client.rest().endswith(DATA)
    server.logs(f"the application gave {len(DATA)} bytes, its Content-Length said {len(DATA) + 1}")


def test_a_file_after_write_or_to_http_1_0(server: Server) -> None:
    assert server.get("/file?write").body == b"before" + DATA
    assert server.get("/file", version="1.0").body == DATA
    assert server.get("/file?write", version="1.0").body == b"before" + DATA


def test_files_do_not_leak(server: Server) -> None:
    for number in range(3):
        server.get(f"/file?number={number}")
    count = len(list(Path(f"/proc/{server.pid}/fd").iterdir()))
    for number in range(20):
        server.get(f"/file?number={number}")
        with server.client() as client:
            client.ask("/file?times=100000")
            client._until(b"\r\n\r\n")
    until(lambda: len(list(Path(f"/proc/{server.pid}/fd").iterdir())) <= count, what="the files' end")


# wsgi.input ----------------------------------------------------------------------------------------------------------

BODY = b"first\nsecond line\n\nlast"


@pytest.mark.parametrize(
    ("by", "got"),
    [
        ("read", ["first\nsecond line\n\nlast"]),
        ("read.-1,read", ["first\nsecond line\n\nlast", ""]),
        ("read.0,read.3,read.100,read.1", ["", "fir", "st\nsecond line\n\nlast", ""]),
        ("readline,readline,readline,readline,readline", ["first\n", "second line\n", "\n", "last", ""]),
        ("readline.3,readline.3,readline.0,read.2", ["fir", "st\n", "", "se"]),
        ("readlines", ["first\n", "second line\n", "\n", "last"]),
        ("readlines.7,readline", ["first\n", "second line\n", "\n"]),
        ("readline,iter", ["first\n", "second line\n", "\n", "last"]),
    ],
)
@pytest.mark.parametrize("coding", ["length", "chunked", "pieces"])
def test_input(server: Server, by: str, got: list[str], coding: str) -> None:
    """Never past the body: the next request follows in the same packet."""
    after = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
    with server.client() as client:
        if coding == "chunked":
            chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (BODY[:7], BODY[7:8], BODY[8:]))
            client.ask(
                f"/input?by={by}",
                "Transfer-Encoding: chunked",
                method="POST",
                body=chunks + b"0\r\nX-T: 1\r\n\r\n" + after,
            )
        elif coding == "length":
            client.ask(f"/input?by={by}", f"Content-Length: {len(BODY)}", method="POST", body=BODY + after)
        else:
            client.ask(f"/input?by={by}", f"Content-Length: {len(BODY)}", method="POST")
            for piece in (BODY[:3], BODY[3:12], BODY[12:] + after):
                client.send(piece)
        assert json.loads(client.response().body) == got
        assert client.response().body == b"index"


@pytest.mark.parametrize("size", [1, 65535, 65536, 65537, 3_000_000])
def test_long_bodies_are_whole(server: Server, size: int) -> None:
    body = bytes(range(251)) * (size // 251 + 1)
    body = body[:size]
    response = server.get("/digest", method="PUT", body=body)
    assert response.body == f"{size} {hashlib.sha256(body).hexdigest()}".encode()


def test_an_unread_body_does_not_spoil_the_next_request(server: Server) -> None:
    with server.client() as client:
        for size in (10, 100_000):
            assert client.get("/unread", method="POST", body=b"x" * size).body == b"unread"
        assert client.get("/").body == b"index"


def test_a_body_on_disk_where_there_is_no_room() -> None:
    def small() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    with serving("epoll", Site("/dev/null"), before=small) as server:
        assert server.get("/digest", method="POST", body=b"x" * 90_000).status == 200
        assert server.get("/digest", method="POST", body=b"x" * 300_000).status == 500
        log = server.logs("a request's body cannot be stored on the disk ($TMPDIR): File too large")
        assert "OSError: [Errno 27]" in log
        assert server.get("/").body == b"index"


# Expect: 100-continue ------------------------------------------------------------------------------------------------


def test_continue(server: Server) -> None:
    """Where the application may block it is called first, else when the body is there; 100 goes out in both cases."""
    name = key()
    with server.client() as client:
        client.ask(f"/tell?key={name}", "Expect: 100-continue", "Content-Length: 5", method="POST")
        assert client.response().status == 100
        called = f"called {name}" in server.notes.read_text()
        assert called is (server.configuration in (*BLOCKING, POOLED))
        client.send(b"hello")
        assert client.response().body == b"told hello"
        assert client.get("/").body == b"index"


def test_continue_is_not_sent_to_who_does_not_wait(server: Server) -> None:
    with server.client() as client:
        client.ask("/tell?key=-", "Expect: 100-continue", method="POST", body=b"hello")
        assert client.response().body == b"told hello"
    with server.client() as client:
        client.ask("/tell?key=-", "Expect: 100-continue", method="POST", body=b"hello", version="1.0")
        assert client.response().body == b"told hello"
    with server.client() as client:
        client.ask("/tell?key=-", "Expect: 100-continue", "Content-Length: 0", method="POST")
        assert client.response().body == b"told "


def test_limits_come_before_continue(server: Server) -> None:
    with server.client() as client:
        client.ask("/tell?key=-", "Expect: 100-continue", f"Content-Length: {1 << 40}", method="POST")
        assert client.response().status == 413
        assert client.closed()
    with server.client() as client:
        client.ask("/tell?key=-", "Expect: something", "Content-Length: 4", method="POST")
        assert client.response().status == 417


def test_a_response_without_a_look_at_the_awaited_body_closes(server: Server) -> None:
    """Where it was not asked for, nobody can tell whether the body will come."""
    with server.client() as client:
        client.ask("/unread?status=401+No", "Expect: 100-continue", "Content-Length: 5", method="POST")
        first = client.response()
        if server.configuration in (*BLOCKING, POOLED):
            assert (first.status, first["Connection"]) == (401, "close")
            client.sock.shutdown(socket.SHUT_WR)
            assert client.closed()
        else:
            assert first.status == 100
            client.send(b"hello")
            assert client.response().status == 401


# Context -------------------------------------------------------------------------------------------------------------


def test_contextvars_are_each_requests_own(server: Server) -> None:
    with server.client() as client, server.client() as other:
        client.ask("/context?key=a")
        other.ask("/context?key=b")
        client.ask("/context?key=c")
        assert client.response().body == b"...nothing a a a"
        assert client.response().body == b"...nothing c c c"
        assert other.response().body == b"...nothing b b b"


def test_wsgi_errors_goes_to_the_log(server: Server) -> None:
    name = key()
    assert server.get(f"/errors?key={name}").body == b"written"
    log = server.logs(f"half of a line {name}\n")
    assert "\x1b" not in log
    assert "ERROR the rest\n" in log
    assert re.search(f"half of a line {name}\n +and a forged", log)  # one write is one record
    assert "\n2026-01-01 00:00:00 [1] ERROR no" not in log


def test_a_body_that_breaks_off(server: Server) -> None:
    name = key()
    with server.client() as client:
        client.ask(f"/tell?key={name}", "Content-Length: 10", method="POST", body=b"half")
        client.sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(EOFError):
            assert client.response().status == 400
    assert f"{name} failed" not in server.log()


def test_a_bad_chunk_is_a_400_whoever_reads_it(server: Server) -> None:
    with server.client() as client:
        client.ask("/tell?key=-", "Transfer-Encoding: chunked", method="POST", body=b"3\r\nabcdef\r\n")
        assert client.response().status == 400
        assert client.closed()


def test_an_application_may_swallow_what_the_body_raises(servers: Any) -> None:
    with servers["thread"].client() as client:
        client.ask("/lenient", "Transfer-Encoding: chunked", method="POST", body=b"3\r\nabcdef\r\n")
        response = client.response()
        assert response.body == b"swallowed no CRLF after the data of a chunk"
        assert response["Connection"] == "close"
