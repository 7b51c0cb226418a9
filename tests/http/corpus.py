"""Reads `cases/*.cases` (see `cases/README.md`), and drives a parser as the handler of a connection does."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from stoker.http.request import MORE, REFUSED, REQUEST, Limits, RequestParser

FOLDER = Path(__file__).parent / "cases"
Fields = list[tuple[bytes, bytes]]


@dataclass
class Seen:
    """A request as the parser gave it."""

    method: str
    target: bytes
    minor: int
    path: bytes
    query: bytes
    scheme: bytes
    host: bytes
    fields: Fields
    length: int
    keep_alive: bool
    expect: bool
    dropped: list[bytes]
    body: bytes = b""
    trailers: Fields = field(default_factory=list)


@dataclass
class Outcome:
    """What came of some bytes: requests, then how it ended: `clean`, `more`, or a status."""

    requests: list[Seen]
    end: str
    reason: str = ""


@dataclass
class Case:
    """One case of the files."""

    name: str
    file: str
    options: dict[str, int] = field(default_factory=dict)
    sent: bytes = b""
    requests: list[dict[str, object]] = field(default_factory=list)
    end: str = "clean"
    reason: str = ""
    in_body: bool = False

    def parser(self) -> RequestParser:
        options = dict(self.options)
        refuse = bool(options.pop("refuse_underscores", 0))
        return RequestParser(Limits(**options), refuse)


def repeated(text: str) -> str:
    return re.sub(r"\\<(\d+) ((?:[^>\\]|\\[^<])*)>", lambda match: match[2] * int(match[1]), text)


def unescape(text: str) -> bytes:
    """Return the bytes that a line of a file stands for."""
    return text.encode("ascii").decode("unicode_escape").encode("latin-1")


def load(file: Path) -> list[Case]:
    """Read the cases of one file."""
    cases: list[Case] = []
    for raw in file.read_text("ascii").split("\n"):
        line = raw
        while line != (line := repeated(line)):
            pass
        if line.startswith("--- "):
            cases.append(Case(line[4:], file.stem))
        elif line.startswith("= "):
            _expect(cases[-1], line[2:])
        elif not cases or not line:
            continue
        elif line.startswith("@ ") and not cases[-1].sent:
            cases[-1].options = {key: int(number) for key, number in (part.split("=") for part in line[2:].split())}
        else:
            assert not cases[-1].requests, f"{file.name}: bytes after the outcome: {line}"
            cases[-1].sent += unescape(line)
    return cases


def _expect(case: Case, line: str) -> None:
    if match := re.fullmatch(r"(\S+) (\S+) HTTP/1\.([01])", line):
        case.requests.append({"method": match[1], "target": unescape(match[2]), "minor": int(match[3])})
    elif match := re.fullmatch(r"(then )?([45]\d\d)(?: (.+))?", line):
        case.end, case.reason, case.in_body = match[2], match[3] or "", match[1] is not None
    elif line == "more":
        case.end = "more"
    else:
        _expect_of_request(case.requests[-1], *line.partition(" ")[::2])


def _expect_of_request(request: dict[str, object], word: str, rest: str) -> None:
    if word in ("close", "keep-alive"):
        request["keep_alive"] = word == "keep-alive"
    elif word == "expect":
        request["expect"] = True
    elif word == "no":
        request["fields"] = []
    elif word == "length":
        request["length"] = int(rest)
    elif word == "dropped":
        request.setdefault("dropped", []).append(unescape(rest))  # type: ignore[attr-defined]
    elif word in ("field", "trailer"):
        name, value = unescape(rest).split(b":", 1)
        request.setdefault(word + "s", []).append((name, value.strip(b" ")))  # type: ignore[attr-defined]
    else:
        assert word in ("path", "query", "scheme", "host", "body"), f"unknown: {word} {rest}"
        request[word] = unescape(rest)


CASES = [case for file in sorted(FOLDER.glob("*.cases")) for case in load(file)]


def drive(parser: RequestParser, pieces: Iterable[bytes]) -> Outcome:
    """Feed the parser piece by piece, and take from it all that can be had after each."""
    seen: list[Seen] = []
    in_body = False
    for piece in pieces:
        fed = parser.buffered() + len(piece)
        parser.feed(piece)
        assert parser.buffered() == fed
        while True:
            if in_body:
                data = parser.body()
                if data is None:
                    return _refused(parser, seen)
                seen[-1].body += data
                if not parser.complete:
                    break
                in_body = False
                seen[-1].trailers, seen[-1].dropped = list(parser.trailers), list(parser.dropped)
                assert parser.body() == b""
            answer = parser.next()
            if answer == REFUSED:
                return _refused(parser, seen)
            if answer == MORE:
                break
            assert answer == REQUEST
            seen.append(_request(parser))
            in_body = not parser.complete
    assert parser.error is None
    if in_body or parser.started:
        return Outcome(seen, "more")
    assert parser.buffered() <= 1  # half of an empty line
    return Outcome(seen, "clean")


def _request(parser: RequestParser) -> Seen:
    assert not parser.started
    assert parser.complete == (parser.length == 0)
    return Seen(
        parser.method,
        parser.target,
        parser.minor,
        parser.path,
        parser.query,
        parser.scheme,
        parser.host,
        list(parser.fields),
        parser.length,
        parser.keep_alive,
        parser.expect_continue,
        list(parser.dropped),
    )


def _refused(parser: RequestParser, seen: list[Seen]) -> Outcome:
    assert parser.error is not None
    if not parser.complete:  # how much of a body was given before its fault depends on how it was cut
        assert parser.body() is None
        seen[-1].body = b""
        seen[-1].trailers = []
    assert parser.next() == REFUSED  # and so for ever
    return Outcome(seen, str(parser.error.status), parser.error.reason)
