"""What must hold of the parser for any bytes whatever; `python -m tests.fuzz` looks for bytes of which it does not."""

from __future__ import annotations

from collections.abc import Iterator

from tests.http.corpus import CASES, Outcome, drive

from stoker.http.grammar import FIELD, PATH, QUERY, TCHAR
from stoker.http.request import Limits, RequestParser

SMALL = Limits(request_line=64, fields=6, field_size=64, head=256, body=128)
STATUSES = {"clean", "more", "400", "413", "414", "417", "431", "501", "505"}
TOKENS = frozenset(TCHAR)
TARGETS = frozenset(PATH + QUERY + b"?")
VALUES = frozenset(FIELD)


def check(data: bytes) -> None:
    """Parse `data` whole, then cut; raise AssertionError for a difference, or for a request that should not be.

    The first byte says which limits hold and whether underscores are refused, the second how the rest is cut.
    """
    if len(data) < 2:
        return
    limits = SMALL if data[0] & 1 else Limits()
    refuse = bool(data[0] & 2)
    message = data[2:]
    whole = drive(RequestParser(limits, refuse), [message] if message else [])
    cut = drive(RequestParser(limits, refuse), _pieces(message, data[1]))
    assert whole == cut, f"cuts matter: {whole} {cut}"
    _sound(whole, limits, len(message))


def _pieces(message: bytes, seed: int) -> Iterator[bytes]:
    """Cut the message: byte by byte for 0, else into pieces whose lengths follow from the seed."""
    place = 0
    while place < len(message):
        length = 1 if seed == 0 else 1 + (seed * 31 + place * 7) % 23
        yield message[place : place + length]
        place += length


def _sound(outcome: Outcome, limits: Limits, size: int) -> None:
    assert outcome.end in STATUSES, outcome
    total = 0
    for seen in outcome.requests:
        assert seen.method, "an empty method"
        assert TOKENS.issuperset(seen.method.encode()), seen
        assert TARGETS.issuperset(seen.target), seen
        assert len(seen.target) < limits.request_line, seen
        assert len(seen.fields) <= limits.fields, seen
        assert len(seen.body) <= limits.body, seen
        assert seen.minor == 0 or any(name == b"host" for name, _ in seen.fields), seen
        for name, value in seen.fields + seen.trailers:
            assert name, seen
            assert TOKENS.issuperset(name), seen
            assert name == name.lower(), seen
            assert b"_" not in name, seen
            assert VALUES.issuperset(value), seen
            assert value == value.strip(b" \t"), seen
        assert not {name for name, _ in seen.trailers} & {b"content-length", b"transfer-encoding", b"host"}, seen
        assert seen.length < 0 or len(seen.body) <= seen.length, seen
        total += len(seen.target) + len(seen.body) + sum(len(name) + len(value) for name, value in seen.fields)
    assert total <= size, "more came out than went in"


def seeds() -> list[bytes]:
    """The cases of the tests, as input for `check`."""
    return [bytes((number % 4, number % 256)) + case.sent for number, case in enumerate(CASES)]
