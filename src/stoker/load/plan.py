"""What a run of the load client is to do, checked before it begins: the plan, the target, the bytes of a request."""

from __future__ import annotations

import ipaddress
import random
import re
import socket
import struct
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from stoker.errors import ConfigError

SPREAD: Final = 20_000  # connections from one address: it has some 28,000 ports (ip_local_port_range, ip(7))
SOURCES: Final = 64  # addresses that connections come from when each serves one request: their ports rest for a minute

#: What a browser sends beside Host: eleven fields together with it.
BROWSER: Final = (
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("Accept-Language", "en-GB,en;q=0.8,de;q=0.5,zh-CN;q=0.3"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Referer", "http://localhost/articles/2026/06/how-a-server-waits"),
    ("Cookie", "session=4f9a1b7c0d2e83566e1f0a9b8c7d6e5f; theme=dark; consent=all"),
    ("Upgrade-Insecure-Requests", "1"),
    ("Sec-Fetch-Dest", "document"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Site", "same-origin"),
)

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(r"[!-~]*")
_OURS: Final = {
    "content-length": "--body or --body-size makes it",
    "transfer-encoding": "a body is sent with its length, by --body or --body-size",
    "connection": "--close sends it",
    "expect": "the body is not held back for an answer",
    "upgrade": "what follows it would not be HTTP/1.1",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. Raises ConfigError for what is wrong or does not fit together.

    :param url: ``http://HOST:PORT/PATH``, or ``tcp://HOST:PORT`` for a raw echo; HOST resolves to 127.0.0.0/8 or ::1
    :param connections: how many are open at a time
    :param seconds: for how long requests are sent, the warm-up not counted; ignored when `requests` is given
    :param requests: how many requests are sent; 0: for `seconds`
    :param rate: requests a second over all connections, sent by the clock; 0: each as soon as the last is answered
    :param pipeline: requests that are in flight on a connection, sent together
    :param close: a new connection for each request
    :param idle: connections more, which make one request each and then stay open and idle
    :param method: of the request
    :param fields: header fields more, (name, value)
    :param browser: send what a browser sends, eleven fields together with Host
    :param body: of the request
    :param size: bytes of the message of a raw echo
    :param warm_up: seconds at the beginning whose answers are not counted
    :param timeout: seconds that an answer may take
    :param expect: the status that is right; 0: every one below 400
    :param expect_bytes: the length that a body must have; -1: any
    """

    url: str
    connections: int = 64
    seconds: float = 5.0
    requests: int = 0
    rate: float = 0.0
    pipeline: int = 1
    close: bool = False
    idle: int = 0
    method: str = "GET"
    fields: tuple[tuple[str, str], ...] = ()
    browser: bool = False
    body: bytes = b""
    size: int = 64
    warm_up: float = 0.0
    timeout: float = 10.0
    expect: int = 0
    expect_bytes: int = -1

    def __post_init__(self) -> None:
        self._check_numbers()
        if self.pipeline > 1 and self.close:
            raise ConfigError("--pipeline and --close: a connection for each request has nothing to pipeline")
        if self.pipeline > 1 and self.rate:
            raise ConfigError(
                "--pipeline and --rate: requests that are sent together cannot each have a time of its own"
            )
        if self.requests and self.warm_up:
            raise ConfigError("--requests and --warm-up: give the warm-up as a run of its own before")
        raw = self.url.startswith("tcp://")
        if raw and (self.method != "GET" or self.fields or self.browser or self.body or self.expect):
            raise ConfigError(f"{self.url}: a raw echo has no method, header fields, body or status")
        if raw and self.expect_bytes >= 0:
            raise ConfigError(f"{self.url}: a raw echo answers what is sent: --size BYTES sets it")
        split(self.url)
        if not _NAME.fullmatch(self.method):
            raise ConfigError(f"--method {self.method!r}: this is no method (RFC 9110 section 9)")
        if self.method == "CONNECT":
            raise ConfigError("--method CONNECT: what follows it would not be HTTP/1.1")
        for name, value in self.fields:
            if not _NAME.fullmatch(name):
                raise ConfigError(f"--header {name!r}: this is no field name (RFC 9110 section 5.1)")
            if not _VALUE.fullmatch(value):
                raise ConfigError(f"--header {name}: {value!r} is no field value (RFC 9110 section 5.5)")
            if name.lower() in _OURS:
                raise ConfigError(f"--header {name}: {_OURS[name.lower()]}")

    def _check_numbers(self) -> None:
        for name, low, high in (
            ("connections", 1, 1_000_000),
            ("seconds", 0.001, 86_400),
            ("requests", 0, 1 << 50),
            ("rate", 0, 10_000_000),
            ("pipeline", 1, 4096),
            ("idle", 0, 1_000_000),
            ("size", 1, 1 << 26),
            ("warm_up", 0, 3600),
            ("timeout", 0.001, 3600),
            ("expect_bytes", -1, 1 << 50),
        ):
            value = getattr(self, name)
            if not low <= value <= high:  # also false for a float that is no number
                option = name.replace("_", "-")
                raise ConfigError(f"--{option} {value}: it must be from {low:,} to {high:,}")
        if self.expect and not 200 <= self.expect <= 599:
            raise ConfigError(f"--expect {self.expect}: the status of an answer is from 200 to 599")
        if 0 < self.rate < 0.001:
            raise ConfigError(f"--rate {self.rate}: it must be at least 0.001 requests a second")

    @property
    def raw(self) -> bool:
        """Whether this is a raw TCP echo."""
        return self.url.startswith("tcp://")

    @property
    def mode(self) -> str:
        """How requests are sent: "closed" loop, or at constant "rate"."""
        return "rate" if self.rate else "closed"

    def message(self) -> bytes:
        """The bytes of one request; of a raw echo, bytes without a pattern that are the same in every run."""
        if self.raw:
            return random.Random(self.size).randbytes(self.size)
        parts = urlsplit(self.url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        given = {name.lower() for name, _ in self.fields}
        fields = [] if "host" in given else [("Host", parts.netloc)]
        fields += [field for field in BROWSER if self.browser and field[0].lower() not in given]
        fields += self.fields
        if self.close:
            fields.append(("Connection", "close"))
        if self.body or self.method in ("POST", "PUT", "PATCH"):  # RFC 9110 section 8.6
            fields.append(("Content-Length", str(len(self.body))))
        lines = [f"{self.method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + self.body


def split(url: str) -> tuple[str, int]:
    """The host and the port of a URL. Raises ConfigError for one that is no target of the load client."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r}: {error}") from None
    if parts.scheme == "https":
        raise ConfigError(f"{url}: TLS is not measured: give an http:// address")
    if parts.scheme not in ("http", "tcp"):
        raise ConfigError(f"{url!r}: it must begin with http:// or tcp://")
    if not parts.hostname or parts.username is not None or parts.fragment:
        raise ConfigError(f"{url!r}: it must be {parts.scheme}://HOST:PORT, without a user and without #")
    if parts.scheme == "tcp" and (parts.path not in ("", "/") or parts.query or port is None):
        raise ConfigError(f"{url!r}: it must be tcp://HOST:PORT")
    if not _TARGET.fullmatch(parts.path + parts.query + parts.netloc) or not _TARGET.fullmatch(url):
        raise ConfigError(f"{url!r}: what is no printable ASCII must be percent-encoded")
    return parts.hostname, 80 if port is None else port


@dataclass(frozen=True, slots=True)
class Target:
    """A resolved address: its family, what connect(2) takes, and the addresses that connections come from."""

    family: int
    address: Any
    sources: tuple[Any, ...]


def resolve(url: str, connections: int, close: bool) -> Target:
    """The address behind a URL, and the local addresses that so many connections need.

    Only 127.0.0.0/8 and ::1 are accepted, looked at after the name is resolved: the client is for one's own servers.
    Raises ConfigError for another address, or a name that does not resolve.
    """
    host, port = split(url)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{url}: {host} does not resolve: {error}") from None
    for _, _, _, _, address in found:
        if not is_loopback(str(address[0])):
            raise ConfigError(
                f"{url}: {host} is {address[0]}, and load goes to this machine alone: 127.0.0.0/8 or ::1, no exceptions"
            )
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    count = SOURCES if close else -(-connections // SPREAD)
    if family != socket.AF_INET or count < 2:
        return Target(family, address, ())
    first = int(ipaddress.IPv4Address("127.0.0.1"))
    return Target(family, address, tuple((str(ipaddress.IPv4Address(first + n)), 0) for n in range(count)))


def is_loopback(address: str) -> bool:
    """Whether a numeric address is in 127.0.0.0/8 or is ::1."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if found.version == 4:
        return found in ipaddress.IPv4Network("127.0.0.0/8")
    return found == ipaddress.IPv6Address("::1")


def packed(address: Any) -> bytes:
    """The sockaddr_in or sockaddr_in6 of an address of the socket module (ip(7), ipv6(7))."""
    if len(address) == 2:
        return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", address[1], socket.inet_aton(address[0]))
    return struct.pack("=H", socket.AF_INET6) + struct.pack(
        "!HI16sI", address[1], 0, socket.inet_pton(socket.AF_INET6, address[0]), 0
    )
