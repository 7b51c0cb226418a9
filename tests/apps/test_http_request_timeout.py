"""``--request-timeout`` on every engine."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.apps.server import ALL, INLINE, POOLED, serving
from tests.engines.harness import until

LIMIT = 0.5
STUCK_IN_A_THREAD = ("thread", POOLED)  # an asynchronous exception waits for the interpreter


class Slow:
    """An application that takes too long in the way that the path names."""

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        way = environ["PATH_INFO"].strip("/")
        if way == "quick":
            start("200 OK", [])
            return [b"quick"]
        if way == "about":
            time.sleep(float(environ["QUERY_STRING"]))
            start("200 OK", [])
            return [b"about"]
        if way == "read":
            body = environ["wsgi.input"].read()
            start("200 OK", [])
            return [body]
        if way == "stream":
            start("200 OK", [])
            return self.stream()
        return getattr(self, way)()

    def steps(self) -> None:
        while True:
            time.sleep(0.01)

    def busy(self) -> None:
        while True:
            pass

    def asleep(self) -> None:
        time.sleep(60)

    def swallow(self) -> None:
        while True:
            try:
                time.sleep(0.02)
            except BaseException:  # what nobody should write
                pass

    def deaf(self) -> None:
        """In C, without a look at signals, for as long as it takes."""
        sum(itertools.repeat(0, 1 << 40))

    def stream(self) -> Iterator[bytes]:
        for _ in range(1000):
            time.sleep(0.02)
            yield b"block "


@pytest.mark.parametrize("way", ["steps", "busy"])
@pytest.mark.parametrize("configuration", ALL)
def test_the_client_gets_a_503_and_the_log_the_stack(configuration: str, way: str) -> None:
    with serving(configuration, Slow(), request_timeout=LIMIT) as server:
        started = time.monotonic()
        with server.client() as client:
            response = client.get(f"/{way}?x")
            assert client.closed()
        assert response.status == 503
        assert LIMIT <= time.monotonic() - started < LIMIT + 5
        log = server.logs(f"GET /{way}?x has had its {LIMIT} s (--request-timeout) and is ended: ")
        assert f"in {way}" in log, "the stack of the guilty one"
        assert "Traceback" not in log
        assert server.get("/quick").body == b"quick"
        assert server.alive()


@pytest.mark.parametrize("configuration", ALL)
def test_it_is_in_the_access_log(configuration: str) -> None:
    with serving(configuration, Slow(), request_timeout=LIMIT, access_log=True) as server, server.client() as client:
        assert client.get("/steps").status == 503
        until(server.access, what="the access line")
        [line] = server.access()
        assert '"GET /steps HTTP/1.1" 503 55' in line


@pytest.mark.parametrize("configuration", ALL)
def test_stuck_in_a_system_call(configuration: str) -> None:
    """A signal ends it where the loop's own thread is stuck; a thread of a pool is beyond help, so the worker goes."""
    with (
        serving(configuration, Slow(), request_timeout=LIMIT, graceful_timeout=0.5) as server,
        server.client() as client,
    ):
        client.ask("/asleep")
        if configuration in STUCK_IN_A_THREAD:
            log = server.logs("GET /asleep does not end: the worker asks to be replaced")
            assert log.count("in asleep") == 2
            assert server.asked_for() == b"RQ"
            assert server.get("/quick").body == b"quick", "the others are served meanwhile"
        else:
            assert client.response().status == 503
            assert server.get("/quick").body == b"quick"
            assert server.asked_for() == b"R"


@pytest.mark.parametrize("configuration", ALL)
def test_an_application_that_swallows_it(configuration: str) -> None:
    with (
        serving(configuration, Slow(), request_timeout=LIMIT, graceful_timeout=0.5) as server,
        server.client() as client,
    ):
        client.ask("/swallow")
        if configuration == "process":
            assert client.response().status == 503, "nothing is thrown there: the process ends"
            assert server.get("/quick").body == b"quick"
        elif configuration in INLINE:
            assert server.wait() == 1
            assert "GET /swallow does not end, and holds the loop up: the worker ends itself" in server.log()
        else:
            server.logs("GET /swallow does not end: the worker asks to be replaced")
            assert server.asked_for() == b"RQ"


@pytest.mark.parametrize("configuration", ["process", "epoll", "gevent", "thread"])
def test_deaf_in_c(configuration: str) -> None:
    """Where no Python code can run any more, the process is ended by one that needs no interpreter."""
    with (
        serving(configuration, Slow(), request_timeout=LIMIT, graceful_timeout=0.2) as server,
        server.client() as client,
    ):
        client.ask("/deaf")
        if configuration == "process":
            assert client.closed()
            assert server.get("/quick").body == b"quick"
        else:
            assert server.wait() == 1
        assert "in deaf" in server.log()


@pytest.mark.parametrize("configuration", ALL)
def test_a_stream_that_takes_too_long_is_cut_off(configuration: str) -> None:
    with serving(configuration, Slow(), request_timeout=LIMIT) as server, server.client() as client:
        client.ask("/stream")
        text = client.rest()
        assert 1 <= text.count(b"block ") < 1000
        assert not text.endswith(b"0\r\n\r\n")
        server.logs("GET /stream has had its")


@pytest.mark.parametrize("configuration", ALL)
def test_waiting_for_the_client_is_not_the_applications_time(configuration: str) -> None:
    with serving(configuration, Slow(), request_timeout=LIMIT) as server, server.client() as client:
        client.ask("/read", "Content-Length: 5", method="POST")
        for byte in b"slow!":
            time.sleep(LIMIT / 3)  # the test: five times a third of the limit
            client.send(bytes([byte]))
        assert client.response().body == b"slow!"
        assert "has had its" not in server.log()


@pytest.mark.parametrize("configuration", ["process", "thread", "epoll", "greenlet", "gevent", POOLED])
def test_a_request_that_has_ended_is_never_hit(configuration: str) -> None:
    """Requests that take as long as they may, within a millisecond: each is answered, one way or the other."""
    answers: list[int] = []

    def ask(server: Any, number: int) -> None:
        for turn in range(20):
            with server.client() as client:
                answers.append(client.get(f"/about?{0.05 + (turn + number) % 9 * 0.0002 - 0.0008:.4f}").status)

    with serving(configuration, Slow(), request_timeout=0.05) as server:
        threads = [threading.Thread(target=ask, args=(server, number)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == 40
        assert set(answers) <= {200, 503}
        assert server.get("/quick").body == b"quick"
        log = server.log()
        assert "failed" not in log
        assert "Traceback" not in log
        assert log.count("has had its") >= answers.count(503), "a line for each 503; more where it came too late"
