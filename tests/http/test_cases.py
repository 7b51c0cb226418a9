"""Every case of `cases/`: whole, byte by byte, cut in two anywhere, and with something after it."""

from __future__ import annotations

import pytest
from tests.http.corpus import CASES, Case, Outcome, drive

ANOTHER = b"GET / HTTP/1.0\r\n\r\n"  # within the limits of every case
GARBAGE = (b"\x00\xff garbage \r\n\r\n", ANOTHER, b"\r\n0\r\n\r\n")
SHORT = 400  # bytes of a case that is cut at every place

each = pytest.mark.parametrize("case", [pytest.param(case, id=f"{case.file}: {case.name}") for case in CASES])


def whole(case: Case) -> Outcome:
    return drive(case.parser(), [case.sent])


def pairs(data: bytes) -> list[tuple[bytes, bytes]]:
    step = 1 if len(data) <= SHORT else len(data) // SHORT
    return [(data[:place], data[place:]) for place in range(1, len(data), step)]


def test_names_and_number() -> None:
    names = [case.name for case in CASES]
    assert len(names) > 500
    assert [name for name in names if names.count(name) > 1] == []
    assert all(case.sent and (case.requests or case.end != "clean" or not case.sent.strip(b"\r\n")) for case in CASES)


@each
def test_outcome(case: Case) -> None:
    outcome = whole(case)
    assert outcome.end == case.end, outcome
    assert case.reason in outcome.reason
    assert len(outcome.requests) == len(case.requests)
    for number, (seen, expected) in enumerate(zip(outcome.requests, case.requests, strict=True), 1):
        path, _, query = seen.target.partition(b"?")
        hosts = [value for name, value in seen.fields if name == b"host"]
        defaults = {
            "path": path,
            "query": query,
            "scheme": b"",
            "host": hosts[0] if hosts else b"",
            "length": 0,
            "body": b"",
            "trailers": [],
            "keep_alive": seen.minor == 1,
            "expect": False,
            "dropped": [],
        }
        last = number == len(outcome.requests)
        if last and case.in_body:
            del defaults["body"]
            assert seen.length != 0
        for key, value in {**defaults, **expected}.items():
            assert getattr(seen, key) == value, (number, key)


@each
def test_byte_by_byte(case: Case) -> None:
    pieces = [case.sent[place : place + 1] for place in range(len(case.sent))]
    assert drive(case.parser(), pieces) == whole(case)


@each
def test_cut_in_two(case: Case) -> None:
    expected = whole(case)
    for pair in pairs(case.sent):
        assert drive(case.parser(), pair) == expected, pair


@each
def test_fed_at_once_in_pieces(case: Case) -> None:
    """More than one feed before the parser is asked: right, if not meant."""
    expected = whole(case)
    for first, second in pairs(case.sent)[:: 1 + len(case.sent) // 50]:
        parser = case.parser()
        parser.feed(first)
        assert drive(parser, [second]) == expected


@each
def test_with_something_after_it(case: Case) -> None:
    expected = whole(case)
    if case.end == "clean" and case.sent.endswith(b"\r"):  # half of an empty line
        assert drive(case.parser(), [case.sent + ANOTHER]).end == "400"
    elif case.end == "clean":
        longer = drive(case.parser(), [case.sent + ANOTHER])
        assert longer.end == "clean"
        assert longer.requests[:-1] == expected.requests
        assert longer.requests[-1].target == b"/"
        assert drive(case.parser(), [case.sent + GARBAGE[0]]).end == "400"
    elif case.end != "more":
        for garbage in GARBAGE:
            assert drive(case.parser(), [case.sent + garbage]) == expected


def test_reading_a_body_to_its_end_comes_first() -> None:
    case = next(case for case in CASES if case.name == "the body has not come yet")
    parser = case.parser()
    parser.feed(case.sent)
    assert parser.next() == 1
    with pytest.raises(RuntimeError, match="has not been read"):
        parser.next()
