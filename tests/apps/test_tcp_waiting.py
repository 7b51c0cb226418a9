"""`stoker.sleep`, `spawn` and `join` where no raw handler calls them: in WSGI applications."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.apps.server import Server, serving

import stoker
from stoker.errors import RequestTimeout

BESIDE = ["process", "thread", "greenlet", "gevent", "epoll-pool"]  # where requests that wait do so side by side
HUBS = [("greenlet", {}), ("gevent", {}), ("gevent", {"patch": False})]
HUB_NAMES = ["greenlet", "gevent", "gevent-unpatched"]


class Waiting:
    """An application that waits in the way that the path names."""

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        start("200 OK", [])
        return [getattr(self, environ["PATH_INFO"].strip("/"))().encode()]

    def sleep(self) -> str:
        began = time.monotonic()
        stoker.sleep(0.3)
        return f"{time.monotonic() - began:.3f}"

    def spawn(self) -> str:
        def work(number: int) -> int:
            stoker.sleep(0.1 * number)
            return number

        async def awaits() -> int:
            await stoker.sleep(0.05)
            return (await stoker.join(first)) + 10

        first = stoker.spawn(work, 1)
        return repr([stoker.join(task) for task in (stoker.spawn(work, 2), first, stoker.spawn(awaits))])

    def forever(self) -> str:
        try:
            while True:
                stoker.sleep(60)
        except RequestTimeout:
            return "timeout"


def together(server: Server, path: str, count: int) -> tuple[list[str], float]:
    """What so many requests at once get, and how long all took."""
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(server.get(path).body.decode())) for _ in range(count)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers, time.monotonic() - began


@pytest.mark.parametrize("configuration", BESIDE)
def test_requests_that_sleep_do_so_side_by_side(configuration: str) -> None:
    count = 2 if configuration == "epoll-pool" else 6
    with serving(configuration, Waiting()) as server:
        assert server.get("/sleep").status == 200  # whatever is imported late has been
        answers, took = together(server, "/sleep", count)
        assert all(float(answer) > 0.29 for answer in answers)
        assert took < 0.3 * count


def test_an_inline_application_that_sleeps_holds_the_others_up() -> None:
    with serving("epoll", Waiting()) as server:
        _, took = together(server, "/sleep", 2)
        assert took > 0.59


@pytest.mark.parametrize(("engine", "options"), HUBS, ids=HUB_NAMES)
def test_spawn_and_join_in_a_request(engine: str, options: dict[str, Any]) -> None:
    with serving(engine, Waiting(), **options) as server:
        assert server.get("/spawn").body == b"[2, 1, 11]"


@pytest.mark.parametrize(("engine", "options"), HUBS, ids=HUB_NAMES)
def test_a_request_that_sleeps_too_long_is_ended(engine: str, options: dict[str, Any]) -> None:
    with serving(engine, Waiting(), request_timeout=3, **options) as server:
        with server.client() as client:
            client.ask("/forever")
            assert server.get("/spawn").status == 200  # beside it
            assert client.response().body == b"timeout"
        assert "in forever" in server.logs("has had its 3 s")
        assert server.alive()


@pytest.mark.parametrize("poller", ["select", "poll", "epoll"])
def test_greenlet_on_each_poller(poller: str) -> None:
    with serving("greenlet", Waiting(), poller=poller) as server:
        answers, took = together(server, "/sleep", 6)
        assert len(answers) == 6
        assert took < 1.5
