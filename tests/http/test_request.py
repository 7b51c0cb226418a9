"""The parser on random input: cuts do not matter, an independent parser agrees, nothing grows faster than its input."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise

import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.http.corpus import CASES, Outcome, drive

from stoker import build
from stoker.http.request import MORE, REFUSED, REQUEST, Limits, RequestParser

SENT = [case.sent for case in CASES if len(case.sent) < 1000]
GOOD = [case.sent for case in CASES if len(case.sent) < 1000 and case.end == "clean" and not case.options]
PIECES = [
    *[
        b"GET ",
        b"POST ",
        b"OPTIONS ",
        b"CONNECT ",
        b"/",
        b"*",
        b"http://a",
        b"?q",
        b" HTTP/1.1",
        b" HTTP/1.0",
        b" HTTP/2.0",
    ],
    *[
        b"\r\n",
        b"\r\n\r\n",
        b"\r",
        b"\n",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"=",
        b'"',
        b"\0",
        b"\xff",
        b"\x7f",
        b"_",
        b"a",
    ],
    *[b"Host: a\r\n", b"Host:", b"Content-Length: 3\r\n", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n"],
    *[
        b"Transfer-Encoding: ",
        b"chunked",
        b"Connection: close\r\n",
        b"keep-alive",
        b"Expect: 100-continue\r\n",
        b"X: y\r\n",
    ],
    *[
        b"0\r\n",
        b"3\r\nabc\r\n",
        b"5;a=b\r\n",
        b"0",
        b"1",
        b"9",
        b"f",
        b"0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
]


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Messages of the cases, one after another, with something put in, taken out or changed."""
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(SENT), min_size=1, max_size=3))))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        stop = start + draw(st.integers(0, 6))
        data[start:stop] = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=3)))
    return bytes(data)


# A busy machine is slow, and that is no failure.
PATIENT = settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SMALL = Limits(request_line=40, fields=5, field_size=40, head=120, body=50)
MESSAGES = st.one_of(messages(), st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join), st.binary(max_size=60))
LIMITS = st.sampled_from([Limits(), SMALL])


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place for place in places if place < len(data))})
    return [data[start:stop] for start, stop in pairwise(edges)]


@PATIENT
@given(data=MESSAGES, limits=LIMITS, places=st.lists(st.integers(0, 400), max_size=8))
def test_cuts_do_not_matter(data: bytes, limits: Limits, places: list[int]) -> None:
    assert drive(RequestParser(limits), cut(data, places)) == drive(RequestParser(limits), cut(data, []))


def by_h11(data: bytes) -> list[tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]] | None:
    """The requests as h11 reads them; None if it refuses any of them or the last one is not whole."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    requests = []
    try:
        while type(event := connection.next_event()) is h11.Request:
            body = b""
            while type(part := connection.next_event()) is h11.Data:
                body += bytes(part.data)
            if type(part) is not h11.EndOfMessage:
                return None
            if event.method == b"CONNECT":
                return None
            requests.append((event.method, event.target, [tuple(pair) for pair in event.headers], body))
            connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                break
            connection.start_next_cycle()
    except h11.RemoteProtocolError:
        return None
    return requests


@PATIENT
@given(data=MESSAGES)
def test_another_parser_agrees_where_it_accepts(data: bytes) -> None:
    """h11 was written by others. Where both accept, they must see the same requests with the same bodies."""
    ours = drive(RequestParser(Limits()), cut(data, []))
    theirs = by_h11(data)
    if ours.end != "clean" or theirs is None or any(seen.dropped for seen in ours.requests):
        return
    for seen, (method, target, headers, body) in zip(ours.requests, theirs, strict=False):
        assert (seen.method.encode(), seen.target, seen.body) == (method, target, body)
        # h11 folds Transfer-Encoding to lower case.
        assert [pair for pair in seen.fields if pair[0] != b"transfer-encoding"] == [
            pair for pair in headers if pair[0] != b"transfer-encoding"
        ]


def mutations(seed: int, count: int) -> Iterator[Outcome]:
    """What comes of the cases and of so many mutations of them, each cut in two: the same at each run."""
    chance = random.Random(seed)
    for case in CASES:
        yield drive(case.parser(), cut(case.sent, [len(case.sent) // 2]))
    for _ in range(count):
        data = bytearray(chance.choice(GOOD) + chance.choice(SENT))
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(data))
            data[place : place + chance.randint(0, 4)] = chance.choice([*PIECES, bytes((chance.randrange(256),))])
        yield drive(RequestParser(SMALL if chance.random() < 0.3 else Limits()), cut(bytes(data), [len(data) // 2]))


@pytest.mark.skipif(not build.describe().startswith("compiled"), reason="nothing is compiled: there is one form")
def test_compiled_and_interpreted_agree() -> None:
    """A child process runs the same sources interpreted on the same input."""
    seed, count = 9112, 5000
    program = f"from tests.http.test_request import mutations\nfor one in mutations({seed}, {count}): print(one)"
    variables = {**os.environ, "STOKER_INTERPRETED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True)
    assert child.stdout.split("\n")[:-1] == [str(one) for one in mutations(seed, count)]


def test_the_memo_gives_the_same_list_again() -> None:
    parser = RequestParser(Limits())
    lists = []
    for target in (b"/1", b"/2?x"):
        parser.feed(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n")
        assert parser.next() == REQUEST
        lists.append(parser.fields)
    assert lists[0] is lists[1]
    parser.feed(b"GET / HTTP/1.1\r\nHost: a\r\nX: z\r\n\r\n")
    assert parser.next() == REQUEST
    assert parser.fields is not lists[0]
    assert lists[0] == [(b"host", b"a"), (b"x", b"y")]


def test_a_large_head_is_not_remembered() -> None:
    parser = RequestParser(Limits())
    lists = []
    for _ in range(2):
        parser.feed(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 5000 + b"\r\n\r\n")
        assert parser.next() == REQUEST
        lists.append(parser.fields)
    assert lists[0] is not lists[1]
    assert lists[0] == lists[1]


def test_started() -> None:
    parser = RequestParser(Limits())
    assert not parser.started
    for piece, started in (
        (b"\r", False),
        (b"\n", False),
        (b"\r\n", False),
        (b"G", True),
        (b"ET / HTTP/1.1\r\n", True),
    ):
        parser.feed(piece)
        assert parser.next() == MORE
        assert bool(parser.started) is started
    parser.feed(b"Host: a\r\n\r\n")
    assert parser.next() == REQUEST
    assert not parser.started
    assert parser.next() == MORE
    assert not parser.started


def test_the_method_of_what_is_refused() -> None:
    for sent, method in (
        (b"HEAD / HTTP/1.1\r\n\r\n", "HEAD"),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n", "GET"),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET /\r\n\r\n", ""),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET\r\n\r\n", ""),
    ):
        parser = RequestParser(Limits())
        assert drive(parser, [sent]).end == "400"
        assert parser.method == method


def test_refused_for_ever() -> None:
    parser = RequestParser(Limits())
    parser.feed(b"GET / HTTP/1.1\r\n\r\n")
    assert parser.next() == REFUSED
    parser.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert parser.next() == REFUSED
    assert parser.error is not None
    assert (parser.error.status, parser.error.reason) == (400, "no Host")


def test_a_body_is_given_as_it_comes() -> None:
    parser = RequestParser(Limits())
    parser.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nab")
    assert parser.next() == REQUEST
    assert parser.body() == b"ab"
    assert parser.body() == b""
    assert not parser.complete
    whole = b"cde"
    parser.feed(whole)
    assert parser.body() is whole  # not copied
    parser.feed(b"fGET")
    assert parser.body() == b"f"
    assert parser.complete
    assert parser.buffered() == 3


@pytest.mark.parametrize("limit", ["request_line", "fields", "field_size", "head", "body"])
def test_a_negative_limit(limit: str) -> None:
    with pytest.raises(ValueError, match=limit):
        Limits(**{limit: -1})


def test_limits_without_limit() -> None:
    limits = Limits(request_line=1 << 100, fields=1 << 100, field_size=1 << 100, head=1 << 100, body=1 << 100)
    head = b"POST / HTTP/1.1\r\nHost: a\r\n"
    for fields, status in (
        (b"Content-Length: 99999999999999999\r\n\r\n", "more"),
        (b"Content-Length: 999999999999999999\r\n\r\n", "413"),
        (b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % ((1 << 58) - 1), "more"),
        (b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % (1 << 58), "413"),
        (b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % (1 << 80), "413"),
    ):
        assert drive(RequestParser(limits), [head + fields]).end == status


def seconds(pieces: list[bytes], limits: Limits) -> float:
    """The processor's time for all of it, without the requests: they are thrown away as they come."""
    parser = RequestParser(limits)
    before = time.process_time()
    for piece in pieces:
        parser.feed(piece)
        if not parser.complete:
            parser.body()
        while parser.complete and parser.next() == REQUEST:
            parser.body()
    return time.process_time() - before


LARGE = Limits(request_line=1 << 30, fields=1 << 30, field_size=1 << 30, head=1 << 30)
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
GROWING = {
    "a request line byte by byte": lambda n: [b"G"] * n,
    "a field line byte by byte": lambda n: [b"GET / HTTP/1.1\r\nX:", *[b"y"] * n],
    "short field lines byte by byte": lambda n: [b"GET / HTTP/1.1\r\n", *[b"X", b":", b"\r", b"\n"] * (n // 4)],
    "short field lines cut before their LF": lambda n: [b"GET / HTTP/1.1\r", *[b"\nX:\r"] * n],
    "pipelined requests": lambda n: [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * n],
    "pipelined requests, each cut": lambda n: [b"GET /", *[b" HTTP/1.1\r\nHost: a\r\n\r\nGET /"] * n],
    "chunks of one byte": lambda n: [CHUNKED + b"1\r\nx\r\n" * n],
    "chunks of one byte, byte by byte": lambda n: [CHUNKED, *[b"1", b"\r", b"\n", b"x", b"\r", b"\n"] * (n // 6)],
    "chunks with an extension": lambda n: [CHUNKED + b"1;a\r\nx\r\n" * n],
    "white space in a value": lambda n: [b"GET / HTTP/1.1\r\nX:" + b" " * n * 10 + b"\r\n"],
    "commas in Connection": lambda n: [b"GET / HTTP/1.1\r\nHost: a\r\nConnection:" + b"," * n * 10 + b"\r\n\r\n"],
    "colons in Host": lambda n: [b"GET / HTTP/1.1\r\nHost: [" + b":" * n * 10 + b"\r\n\r\n"],
    "percent signs in Host": lambda n: [b"GET / HTTP/1.1\r\nHost: " + b"%41" * n * 10 + b"%\r\n\r\n"],
    "slashes in the target": lambda n: [b"GET http://a" + b"/?" * n * 10 + b" HTTP/1.1\r\nHost: a\r\n\r\n"],
}


@pytest.mark.parametrize("name", GROWING)
def test_nothing_is_quadratic(name: str) -> None:
    """Ten times the input may cost thirty times the time, to leave room for noise; if quadratic, it is a hundred."""
    small, large = 2000, 20000
    best = min(seconds(GROWING[name](small), LARGE) for _ in range(5))
    taken = 0.0
    for _ in range(5):  # a busy neighbour may spoil one measurement, not five
        taken = seconds(GROWING[name](large), LARGE)
        if taken < 30 * max(best, 0.0005):
            return
    pytest.fail(f"{small}: {best:.4f} s, {large}: {taken:.4f} s")
