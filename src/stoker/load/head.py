"""The head of an HTTP/1.1 response, read strictly: where it is wrong, what follows it is anybody's guess."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from stoker.errors import StokerError

NOTHING: Final = 0  # no body
LENGTH: Final = 1  # Content-Length
CHUNKED: Final = 2  # Transfer-Encoding: chunked
CLOSE: Final = 3  # the body ends with the connection

_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9]) [\t\x20-\x7e\x80-\xff]*")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*((?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)[ \t]*")


class FramingError(StokerError):
    """What the server sent is no HTTP/1.1 response, or not the bytes that were sent to it; says what is wrong."""


class Head(NamedTuple):
    """What matters of a head: the status, how the body ends, its length where that is known, whether more may follow.

    `last` says that the server will close the connection after this response.
    """

    status: int
    framing: int
    length: int
    last: bool


def parse(raw: bytes, bodiless: bool) -> Head:
    """Read a head, from the status line to the empty line; `bodiless`: it answers a HEAD request.

    Raises FramingError for what RFC 9112 does not allow, and for 101, which was not asked for.
    """
    if not raw.endswith(b"\r\n\r\n"):
        raise FramingError("the head does not end with an empty line")
    first, *lines = raw[:-4].split(b"\r\n")
    line = _LINE.fullmatch(first)
    if line is None:
        raise FramingError(f"no status line of HTTP/1.1: {first[:80]!r}")
    status = int(line[2])
    length, coding, options = _framing(lines)
    last = b"close" in options or (line[1] == b"0" and b"keep-alive" not in options)
    if status == 101:
        raise FramingError("101 Switching Protocols, though nothing asked for that")
    if status < 200 or status in (204, 304) or bodiless:  # RFC 9112 section 6.3, rule 1
        return Head(status, NOTHING, 0, last)
    if coding is not None:
        if coding.lower() != b"chunked" or line[1] == b"0":
            raise FramingError(f"Transfer-Encoding: {coding[:80]!r} in HTTP/1.{int(line[1])}")
        if length is not None:
            raise FramingError("both Content-Length and Transfer-Encoding (RFC 9112 section 6.3)")
        return Head(status, CHUNKED, -1, last)
    if length is None:
        return Head(status, CLOSE, -1, True)
    return Head(status, LENGTH if length else NOTHING, length, last)


def _framing(lines: list[bytes]) -> tuple[int | None, bytes | None, set[bytes]]:
    """Content-Length, Transfer-Encoding and the options of Connection."""
    length: int | None = None
    coding: bytes | None = None
    options: set[bytes] = set()
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise FramingError(f"no header field: {line[:80]!r}")
        name, value = field[1].lower(), field[2]
        if name == b"content-length":
            if length is not None:
                raise FramingError("Content-Length twice")
            if not re.fullmatch(rb"[0-9]{1,18}", value):
                raise FramingError(f"Content-Length: {value[:80]!r}")
            length = int(value)
        elif name == b"transfer-encoding":
            if coding is not None:
                raise FramingError("Transfer-Encoding twice")
            coding = value
        elif name == b"connection":
            options.update(option.strip().lower() for option in value.split(b","))
    return length, coding, options


def chunk_size(line: bytes) -> int:
    """The size in the first line of a chunk, extensions aside (RFC 9112 section 7.1). Raises FramingError."""
    digits = line.partition(b";")[0].rstrip(b" \t")
    if not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", digits):
        raise FramingError(f"a chunk's size is {line[:80]!r}")
    return int(digits, 16)


def trailer(line: bytes) -> None:
    """Check a field of the trailer section (RFC 9112 section 7.1.2). Raises FramingError."""
    if not _FIELD.fullmatch(line):
        raise FramingError(f"no trailer field: {line[:80]!r}")
