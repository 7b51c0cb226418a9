"""Does a server answer right? Raw sockets, so that framing, fields and order are seen as they are sent."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from benchmarks.apps import BLOCK, BLOCKS, HELLO, LARGE

TIMEOUT = 10.0
UPLOAD = 1 << 20
PATTERN = "0010110111010001"  # which of the pipelined requests ask for the large answer: the order shows
BROWSER = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/137.0.0.0 Safari/537.36",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Language: en-GB,en;q=0.9",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Referer: http://127.0.0.1/index.html",
    "Cookie: session=0123456789abcdef0123456789abcdef; theme=dark",
    "Upgrade-Insecure-Requests: 1",
    "Sec-Fetch-Dest: document",
    "Sec-Fetch-Mode: navigate",
    "Cache-Control: max-age=0",
)  # ten, and Host


class Wrong(Exception):
    """An answer that is not what was asked for; the text says how."""


@dataclass
class Answer:
    status: int
    fields: list[tuple[str, str]]
    framing: str = ""
    body: bytes = b""

    def get(self, name: str) -> str | None:
        found = [value for key, value in self.fields if key.lower() == name]
        if len(found) > 1:
            raise Wrong(f"{name} is sent {len(found)} times")
        return found[0] if found else None


@dataclass
class Checked:
    """What was seen of a server in a workload.

    :ivar wrong: what is wrong; empty if nothing is
    :ivar notes: what is worth knowing and not wrong, such as that it closes after each answer
    """

    wrong: str = ""
    notes: list[str] = field(default_factory=list)


class Wire:
    """A connection that reads strictly."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self.sock.settimeout(TIMEOUT)
        self.buffer = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def more(self) -> bool:
        data = self.sock.recv(65536)
        self.buffer += data
        return bool(data)

    def until(self, mark: bytes) -> bytes:
        while (end := self.buffer.find(mark)) < 0:
            if not self.more():
                raise Wrong(f"the connection ends after {self.buffer[:60]!r}")
        piece, self.buffer = self.buffer[:end], self.buffer[end + len(mark) :]
        return piece

    def exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            if not self.more():
                raise Wrong(f"the connection ends {size - len(self.buffer)} bytes early")
        piece, self.buffer = self.buffer[:size], self.buffer[size:]
        return piece

    def answer(self) -> Answer:
        """The next answer, by RFC 9112, 6.3."""
        first, *lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        words = first.split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
            raise Wrong(f"no status line: {first!r}")
        found = Answer(int(words[1]), [(name, rest.strip()) for name, _, rest in (x.partition(":") for x in lines)])
        length, coding = found.get("content-length"), found.get("transfer-encoding")
        if length is not None and coding is not None:
            raise Wrong("both Content-Length and Transfer-Encoding")
        if coding is not None:
            found.framing = "chunked"
            while size := int(self.until(b"\r\n"), 16):
                found.body += self.exactly(size)
                if self.exactly(2) != b"\r\n":
                    raise Wrong("a chunk does not end in CR LF")
            if self.until(b"\r\n"):
                raise Wrong("trailer fields that nobody asked for")
        elif length is not None:
            found.framing = "Content-Length"
            found.body = self.exactly(int(length))
        else:
            found.framing = "the end of the connection"
            while self.more():
                pass
            found.body, self.buffer = self.buffer, b""
        return found

    def ended(self) -> bool:
        """Whether the connection ends here, without another byte."""
        try:
            return not self.buffer and not self.more()
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False


def request(path: str, *fields: str, body: bytes = b"", method: str = "GET") -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        *fields,
        *([f"Content-Length: {len(body)}"] if body else []),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def expect(answer: Answer, body: bytes) -> None:
    if answer.status != 200:
        raise Wrong(f"status {answer.status}")
    if answer.body != body:
        raise Wrong(f"a body of {len(answer.body)} bytes, {answer.body[:20]!r}, in place of {len(body)}, {body[:20]!r}")


def fields_sent(answer: Answer) -> list[str]:
    missing = [name.title() for name in ("date", "server") if answer.get(name) is None]
    return [f"no {' and no '.join(missing)}"] if missing else []


def twice(port: int, data: bytes, body: bytes) -> list[str]:
    """Two requests on a connection, or on two where the server closes each."""
    with Wire(port) as wire:
        wire.sock.sendall(data)
        first = wire.answer()
        expect(first, body)
        notes = fields_sent(first)
        if first.framing != "Content-Length":
            notes.append(f"framed by {first.framing}")
        closes = first.framing == "the end of the connection" or (first.get("connection") or "").lower() == "close"
        if not closes:
            try:
                wire.sock.sendall(data)
                expect(wire.answer(), body)
            except (Wrong, ConnectionError) as error:
                if wire.buffer or ("ends after b''" not in str(error) and not isinstance(error, ConnectionError)):
                    raise
                closes = True
                notes.append("does not say that it closes")
    return [*notes, "closes after each answer"] if closes else notes


def pipelined(port: int) -> list[str]:
    with Wire(port) as wire:
        wire.sock.sendall(b"".join(request("/64k" if one == "1" else "/") for one in PATTERN))
        for number, one in enumerate(PATTERN):
            try:
                expect(wire.answer(), LARGE if one == "1" else HELLO)
            except (Wrong, OSError) as error:
                raise Wrong(f"pipelined by 16: {number} right, then {error}") from None
    return []


def closing(port: int) -> list[str]:
    with Wire(port) as wire:
        wire.sock.sendall(request("/", "Connection: close"))
        expect(wire.answer(), HELLO)
        if not wire.ended():
            raise Wrong("it does not close after Connection: close")
    return []


def echoing(port: int) -> list[str]:
    with Wire(port) as wire:
        for size in (1, 64, 5000):
            data = bytes(number % 251 for number in range(size))
            wire.sock.sendall(data)
            if wire.exactly(size) != data:
                raise Wrong(f"{size} bytes do not come back as they were sent")
    return []


def check(kind: str, port: int) -> Checked:
    """Look at a server as a workload will use it: kind is the workload's `checked`."""
    checks = {
        "hello": lambda: twice(port, request("/"), HELLO),
        "browser": lambda: twice(port, request("/", *BROWSER), HELLO),
        "large": lambda: twice(port, request("/64k"), LARGE),
        "stream": lambda: twice(port, request("/stream"), BLOCK * BLOCKS),
        "upload": lambda: twice(port, request("/upload", body=b"x" * UPLOAD, method="POST"), str(UPLOAD).encode()),
        "pipelined": lambda: pipelined(port),
        "close": lambda: closing(port),
        "echo": lambda: echoing(port),
    }
    try:
        return Checked(notes=checks[kind]())
    except (Wrong, OSError, ValueError) as error:
        return Checked(wrong=str(error) or type(error).__name__)
