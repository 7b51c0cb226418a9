"""What is refused before anything is sent, and how."""

from __future__ import annotations

import resource
import socket
from typing import Any

import pytest

from stoker.errors import ConfigError
from stoker.load import Plan, Unreachable, run
from stoker.load.open import need_descriptors
from stoker.load.plan import is_loopback, resolve

URL = "http://127.0.0.1:8000/"
RAW = "tcp://127.0.0.1:9000"


@pytest.mark.parametrize(
    ("url", "more", "words"),
    [
        ("https://127.0.0.1/", {}, "TLS is not measured"),
        ("ftp://127.0.0.1/", {}, "it must begin with http:// or tcp://"),
        ("127.0.0.1:8000", {}, "it must begin with http:// or tcp://"),
        ("http:///x", {}, "it must be http://HOST:PORT"),
        ("http://me@127.0.0.1/", {}, "without a user"),
        ("http://127.0.0.1:99999/", {}, "Port out of range"),
        ("http://127.0.0.1/a b", {}, "percent-encoded"),
        ("http://127.0.0.1/é", {}, "percent-encoded"),
        ("http://127.0.0.1/\r\nX: y", {}, "percent-encoded"),
        ("tcp://127.0.0.1", {}, "tcp://HOST:PORT"),
        ("tcp://127.0.0.1:1/x", {}, "tcp://HOST:PORT"),
        (RAW, {"method": "POST"}, "a raw echo has no method"),
        (RAW, {"expect_bytes": 3}, "--size BYTES"),
        (URL, {"connections": 0}, "--connections 0: it must be from 1"),
        (URL, {"seconds": float("nan")}, "--seconds nan"),
        (URL, {"timeout": 0.0}, "--timeout 0.0"),
        (URL, {"rate": -1.0}, "--rate -1.0"),
        (URL, {"rate": 1e-9}, "at least 0.001"),
        (URL, {"expect": 100}, "--expect 100"),
        (URL, {"pipeline": 2, "close": True}, "--pipeline and --close"),
        (URL, {"pipeline": 2, "rate": 10.0}, "--pipeline and --rate"),
        (URL, {"requests": 2, "warm_up": 1.0}, "--requests and --warm-up"),
        (URL, {"method": "A B"}, "this is no method"),
        (URL, {"method": "CONNECT"}, "CONNECT"),
        (URL, {"fields": (("a b", "c"),)}, "no field name"),
        (URL, {"fields": (("a", "c\r\nd: e"),)}, "no field value"),
        (URL, {"fields": (("Content-Length", "3"),)}, "--body or --body-size makes it"),
        (URL, {"fields": (("connection", "close"),)}, "--close sends it"),
    ],
)
def test_a_wrong_plan_is_refused(url: str, more: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Plan(url, **more)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("address", "right"),
    [
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("::1", True),
        ("128.0.0.1", False),
        ("126.255.255.255", False),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("::", False),
        ("::2", False),
        ("::ffff:127.0.0.1", False),
        ("fe80::1%lo", False),
        ("localhost", False),
    ],
)
def test_what_is_this_machine(address: str, right: bool) -> None:
    assert is_loopback(address) is right


@pytest.mark.parametrize("host", ["10.0.0.1", "0.0.0.0", "[::]", "[::ffff:127.0.0.1]", "0x0a000001", "2130706434.0"])
def test_no_other_machine_is_loaded(host: str) -> None:
    with pytest.raises(ConfigError, match=r"127\.0\.0\.0/8 or ::1, no exceptions|does not resolve"):
        run(Plan(f"http://{host}:9/"))


def test_the_address_counts_and_not_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name of which one address is elsewhere is refused, and the address that was looked at is the one used."""
    here = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))
    away = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [here])
    assert resolve("http://some.example/", 1, False).address == ("127.0.0.1", 80)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [here, away])
    with pytest.raises(ConfigError, match=r"some\.example is 192\.0\.2\.1"):
        resolve("http://some.example/", 1, False)


def test_many_connections_come_from_many_addresses() -> None:
    assert resolve(URL, 20_000, False).sources == ()
    assert resolve(URL, 20_001, False).sources == (("127.0.0.1", 0), ("127.0.0.2", 0))
    assert len(resolve(URL, 1, True).sources) == 64
    assert resolve("http://[::1]:80/", 1, True).sources == ()


def test_more_connections_than_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 1000))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: limits.append(limit))
    with pytest.raises(ConfigError, match="1,000 connections need 1,064 open files, and 1,000 are allowed"):
        run(Plan(URL, connections=900, idle=100))
    need_descriptors(900)
    assert limits == [(964, 1000)]


@pytest.mark.parametrize("close", [False, True])
def test_nobody_listens(close: bool) -> None:
    with socket.socket() as held:  # bound, so that nobody else can listen there
        held.bind(("127.0.0.1", 0))
        with pytest.raises(Unreachable, match="Connection refused"):
            run(Plan(f"http://127.0.0.1:{held.getsockname()[1]}/", close=close, connections=2))
