"""A WSGI application with a page for everything that PEP 3333 allows or forbids."""

from __future__ import annotations

import contextvars
import gzip
import hashlib
import io
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs
from wsgiref.validate import validator

PLAIN = [("Content-Type", "text/plain")]
SEEN: contextvars.ContextVar[str] = contextvars.ContextVar("SEEN", default="nothing")

# What an application may not hand over: a status and the header fields, each a 500.
BAD: dict[str, tuple[Any, Any]] = {
    "value-crlf": ("200 OK", [("X-A", "b\r\nSet-Cookie: c=d")]),
    "value-lf": ("200 OK", [("X-A", "b\nc")]),
    "value-nul": ("200 OK", [("X-A", "b\0c")]),
    "name-colon": ("200 OK", [("X-A: b", "c")]),
    "name-crlf": ("200 OK", [("X-A\r\nX-B", "c")]),
    "name-empty": ("200 OK", [("", "c")]),
    "name-blank": ("200 OK", [("X A", "c")]),
    "status-crlf": ("200 OK\r\nX-A: b", PLAIN),
    "status-short": ("20 OK", PLAIN),
    "status-word": ("OK", PLAIN),
    "status-int": (200, PLAIN),
    "status-100": ("100 Continue", PLAIN),
    "status-101": ("101 Switching Protocols", PLAIN),
    "status-199": ("199 Odd", PLAIN),
    "status-600": ("600 Odd", PLAIN),
    "headers-tuple": ("200 OK", (("X-A", "b"),)),
    "headers-none": ("200 OK", None),
    "header-list": ("200 OK", [["X-A", "b"]]),
    "header-bytes": ("200 OK", [(b"X-A", b"b")]),
    "header-int": ("200 OK", [("X-A", 1)]),
    "header-euro": ("200 OK", [("X-A", "\u20ac")]),
    "length-twice": ("200 OK", [("Content-Length", "2"), ("content-length", "2")]),
    "length-word": ("200 OK", [("Content-Length", "two")]),
    "length-sign": ("200 OK", [("Content-Length", "+2")]),
    "hop-transfer": ("200 OK", [("Transfer-Encoding", "chunked")]),
    "hop-upgrade": ("200 OK", [("Upgrade", "websocket")]),
    "hop-keep-alive": ("200 OK", [("Keep-Alive", "timeout=5")]),
}


class Noted:
    """An iterable that notes its close, with the thread and the context that it happened in."""

    def __init__(self, site: Site, key: str, blocks: Iterable[bytes]) -> None:
        self.site = site
        self.key = key
        self.blocks = iter(blocks)
        self.thread = threading.get_ident()
        SEEN.set(key)

    def __iter__(self) -> Iterator[bytes]:
        return self.blocks

    def close(self) -> None:
        where = "same" if threading.get_ident() == self.thread else "other"
        self.site.note(f"closed {self.key} {where} {SEEN.get()}")


class Site:
    """:param notes: a file that takes what cannot be seen from outside, a line each."""

    def __init__(self, notes: str) -> None:
        self.notes = notes
        self.valid = validator(self.plain)

    def note(self, text: str) -> None:
        fd = os.open(self.notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(fd, text.encode() + b"\n")
        os.close(fd)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        page = environ["PATH_INFO"].strip("/").partition("/")[0] or "index"
        query = {key: values[-1] for key, values in parse_qs(environ["QUERY_STRING"], True).items()}
        return getattr(self, f"page_{page}", self.page_environ)(environ, start, query)

    # Pages.

    def page_index(self, environ: Any, start: Any, query: Any) -> Any:
        start("200 OK", PLAIN)
        return [b"index"]

    def page_environ(self, environ: Any, start: Any, query: Any) -> Any:
        start("200 OK", [("Content-Type", "application/json")])
        shown = {
            key: value if isinstance(value, str | int | bool | list | tuple) else f"<{type(value).__name__}>"
            for key, value in environ.items()
        }
        return [json.dumps(shown).encode()]

    def plain(self, environ: Any, start: Any) -> Any:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 100))
        start("200 OK", [("Content-Type", "text/plain"), ("X-Method", environ["REQUEST_METHOD"])])
        return [b"valid ", body]

    def page_valid(self, environ: Any, start: Any, query: Any) -> Any:
        return self.valid(environ, start)

    def page_write(self, environ: Any, start: Any, query: Any) -> Any:
        write = start("200 OK", PLAIN)
        write(b"one ")
        write(b"")
        write(b"two ")
        return [b"three ", b"four"]

    def page_blocks(self, environ: Any, start: Any, query: Any) -> Any:
        """``n`` blocks of ``size`` bytes, ``after`` seconds between them."""
        headers = list(PLAIN)
        if "length" in query:
            headers.append(("Content-Length", query["length"]))
        start("200 OK", headers)
        size, after = int(query.get("size", 10)), float(query.get("after", 0))

        def blocks() -> Iterator[bytes]:
            for number in range(int(query.get("n", 3))):
                if number and after:
                    time.sleep(after)
                yield str(number % 10).encode() * size

        return Noted(self, query.get("key", "blocks"), blocks())

    def page_raise(self, environ: Any, start: Any, query: Any) -> Any:
        """Raises at the place that ``at`` names."""
        at, key = query["at"], query.get("key", "raise")
        if at == "call":
            raise RuntimeError(f"raised in the call {key}")
        start("200 OK", PLAIN)
        if at == "started":
            raise RuntimeError(f"raised after start_response {key}")

        def blocks() -> Iterator[bytes]:
            if at == "later":
                yield b"first"
                yield b"second"
            raise RuntimeError(f"raised while iterating {key}")

        return Noted(self, key, blocks())

    def page_exit(self, environ: Any, start: Any, query: Any) -> Any:
        raise {"exit": SystemExit, "interrupt": KeyboardInterrupt, "generator": GeneratorExit}[query["how"]]("out")

    def page_nothing(self, environ: Any, start: Any, query: Any) -> Any:
        """Returns what ``what`` names without the call that it lacks."""
        if query["what"] == "no-start":
            return [b"body"]
        start("200 OK", PLAIN)
        return {
            "none": None,
            "text": "text",
            "texts": ["text"],
            "list": [],
            "numbers": [1, 2],
            "bytearray": [bytearray(b"a")],
        }[query["what"]]

    def page_replaced(self, environ: Any, start: Any, query: Any) -> Any:
        """exc_info, before the head has gone out or after."""
        write = start("200 OK", [("X-First", "yes")])
        if "late" in query:
            write(b"already here")
        try:
            raise ValueError("told by exc_info")
        except ValueError:
            start("503 Replaced", [("X-Second", "yes")], sys.exc_info())
        return [b"replaced"]

    def page_twice(self, environ: Any, start: Any, query: Any) -> Any:
        start("200 OK", PLAIN)
        start("201 Created", PLAIN)
        return [b"never"]

    def page_bad(self, environ: Any, start: Any, query: Any) -> Any:
        start(*BAD[query["what"]])
        return [b"ab"]

    def page_status(self, environ: Any, start: Any, query: Any) -> Any:
        headers = [("X-Page", "status")]
        if "length" in query:
            headers.append(("Content-Length", query["length"]))
        if "close" in query:
            headers.append(("Connection", "close"))
        start(query["status"], headers)
        return [query.get("body", "body").encode()] if "stream" not in query else iter([b"bo", b"dy"])

    def page_input(self, environ: Any, start: Any, query: Any) -> Any:
        """Reads the body by the calls that ``by`` names, and tells what each gave."""
        stream = environ["wsgi.input"]
        got: list[Any] = []
        for call in query["by"].split(","):
            name, _, argument = call.partition(".")
            if name == "iter":
                got += list(stream)
                continue
            value = getattr(stream, name)(*[int(argument)] if argument else [])
            got += value if isinstance(value, list) else [value]
        start("200 OK", PLAIN)
        return [json.dumps([piece.decode() for piece in got]).encode()]

    def page_digest(self, environ: Any, start: Any, query: Any) -> Any:
        digest, size = hashlib.sha256(), 0
        while piece := environ["wsgi.input"].read(int(query.get("size", 10000))):
            digest.update(piece)
            size += len(piece)
        start("200 OK", PLAIN)
        return [f"{size} {digest.hexdigest()}".encode()]

    def page_unread(self, environ: Any, start: Any, query: Any) -> Any:
        start(query.get("status", "200 OK"), PLAIN)
        return [b"unread"]

    def page_tell(self, environ: Any, start: Any, query: Any) -> Any:
        """Notes that it was called, then reads."""
        self.note(f"called {query['key']}")
        body = environ["wsgi.input"].read()
        start("200 OK", PLAIN)
        return [b"told ", body]

    def page_lenient(self, environ: Any, start: Any, query: Any) -> Any:
        """Swallows what the body raises."""
        try:
            body = environ["wsgi.input"].read()
        except OSError as error:
            body = f"swallowed {error}".encode()
        start("200 OK", PLAIN)
        return [body]

    def page_file(self, environ: Any, start: Any, query: Any) -> Any:
        """A file by wsgi.file_wrapper; ``kind`` says of what sort."""
        data = bytes(range(256)) * int(query.get("times", 1000))
        kind = query.get("kind", "regular")
        file: Any
        if kind == "memory":
            file = io.BytesIO(data)
        elif kind == "gzip":
            packed = tempfile.TemporaryFile()  # noqa: SIM115 - the server closes it
            packed.write(gzip.compress(data))
            packed.seek(0)
            file = gzip.GzipFile(fileobj=packed)
        elif kind == "named":
            file = tempfile.NamedTemporaryFile()  # noqa: SIM115
            file.write(data)
        elif kind == "raw":
            file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            file.write(data)
        else:
            file = tempfile.TemporaryFile()  # noqa: SIM115
            file.write(data)
        file.seek(int(query.get("seek", 0)))
        headers = list(PLAIN)
        if "length" in query:
            headers.append(("Content-Length", query["length"]))
        write = start(query.get("status", "200 OK"), headers)
        if "write" in query:
            write(b"before")
        wrapper = environ["wsgi.file_wrapper"](file, 4096)
        closing = wrapper.close

        def close() -> None:
            self.note(f"closed {query.get('key', 'file')}")
            closing()

        wrapper.close = close
        return wrapper

    def page_context(self, environ: Any, start: Any, query: Any) -> Any:
        """What a request finds of the context variables of those before it, at each step."""
        found = [SEEN.get()]
        SEEN.set(query["key"])
        start("200 OK", PLAIN)

        def blocks() -> Iterator[bytes]:
            for _ in range(3):
                found.append(SEEN.get())
                yield b"."
            yield " ".join(found).encode()

        return blocks()

    def page_errors(self, environ: Any, start: Any, query: Any) -> Any:
        stream = environ["wsgi.errors"]
        stream.write("half of ")
        stream.write(f"a line {query['key']}\nand a forged\x1b[31m one\n2026-01-01 00:00:00 [1] ERROR no\n")
        stream.writelines(["the ", "rest"])
        stream.flush()
        start("200 OK", PLAIN)
        return [b"written"]

    def page_sleep(self, environ: Any, start: Any, query: Any) -> Any:
        time.sleep(float(query["for"]))
        start("200 OK", PLAIN)
        return [b"slept"]


def count_sendfile(site: Site) -> None:
    """Note each call of sendfile(2): run in the worker before it starts."""
    original = os.sendfile

    def sendfile(out_fd: int, in_fd: int, offset: int, count: int) -> int:
        sent = original(out_fd, in_fd, offset, count)
        site.note(f"sendfile {sent}")
        return sent

    os.sendfile = sendfile  # type: ignore[assignment]
