"""What an application hands over becomes exactly one response, or an ApplicationError."""

from __future__ import annotations

from typing import Any

import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoker.errors import ApplicationError
from stoker.http.response import CONTINUE, HOP_BY_HOP, ResponseWriter, http_date, refusal

DATE = http_date(784111777)
Headers = list[tuple[str, str]]


def begun(method: str = "GET", minor: int = 1, keep_alive: bool = True, server: bytes = b"stoker") -> ResponseWriter:
    writer = ResponseWriter(server)
    writer.begin(method, minor, keep_alive)
    return writer


def started(status: str = "200 OK", headers: Headers | None = None, **begin: Any) -> ResponseWriter:
    writer = begun(**begin)
    writer.start(status, [] if headers is None else headers)
    return writer


def lines(head: bytes) -> list[bytes]:
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].split(b"\r\n")


def test_a_whole_response() -> None:
    writer = started("200 OK", [("Content-Type", "text/plain")])
    assert writer.one(b"hello", DATE) == (
        b"HTTP/1.1 200 OK\r\nServer: stoker\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        b"Content-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
    )
    assert (writer.status, writer.sent, writer.length) == (200, 5, -1)
    assert writer.keep_alive
    assert writer.sent_head
    assert not writer.short
    assert not writer.excess


def test_the_same_response_again_and_one_that_differs() -> None:
    writer = begun()
    answers = []
    for name, body in (("a", b"1"), ("a", b"2"), ("a", b"33"), ("b", b"4"), ("a", b"5")):
        writer.begin("GET", 1, True)
        writer.start("200 OK", [("X", name)])
        answers.append(writer.one(body, DATE))
    assert [answer.partition(b"X: ")[2] for answer in answers] == [
        b"a\r\nContent-Length: 1\r\n\r\n1",
        b"a\r\nContent-Length: 1\r\n\r\n2",
        b"a\r\nContent-Length: 2\r\n\r\n33",
        b"b\r\nContent-Length: 1\r\n\r\n4",
        b"a\r\nContent-Length: 1\r\n\r\n5",
    ]


@pytest.mark.parametrize("change", ["date", "status", "close", "minor", "length", "own date", "own server"])
def test_the_memo_of_the_head_sees_every_change(change: str) -> None:
    """A head is reused only if all that it is made of is the same."""

    def answer(writer: ResponseWriter, changed: bool) -> bytes:
        close, minor = changed and change == "close", 0 if changed and change == "minor" else 1
        writer.begin("GET", minor, not close)
        headers = [("Content-Length", "3" if changed and change == "length" else "2")]
        if changed and change.startswith("own"):
            headers.append((change[4:].title(), "x"))
        writer.start("201 Created" if changed and change == "status" else "200 OK", headers)
        return writer.one(b"ab", http_date(1) if changed and change == "date" else DATE)

    once = ResponseWriter()
    sequence = [answer(once, changed) for changed in (False, True, True, False)]
    assert sequence == [answer(ResponseWriter(), changed) for changed in (False, True, True, False)]
    assert sequence[0] != sequence[1]


def test_a_list_that_the_application_changes_afterwards_is_checked_again() -> None:
    writer = begun()
    headers = [("X", "1")]
    writer.start("200 OK", headers)
    headers[0] = ("X", "2\r\nY: z")
    writer.begin("GET", 1, True)
    with pytest.raises(ApplicationError):
        writer.start("200 OK", headers)
    assert not writer.started


def test_after_a_refusal_the_former_fields_are_not_taken_for_new() -> None:
    writer = begun()
    writer.start("200 OK", [("X", "1")])
    with pytest.raises(ApplicationError):
        writer.start("200 OK", [("X", "\n")])
    writer.start("200 OK", [("X", "1")])
    assert b"\r\nX: 1\r\n" in writer.one(b"", DATE)


def test_no_server_field() -> None:
    assert b"Server" not in started(server=b"").one(b"", DATE)


def test_a_bad_server_field() -> None:
    with pytest.raises(ValueError, match="Server"):
        ResponseWriter(b"a\r\nX: y")


def test_own_date_and_server_are_not_doubled() -> None:
    answer = started("200 OK", [("dAtE", "then"), ("SERVER", "mine")]).one(b"", DATE)
    assert lines(answer) == [b"HTTP/1.1 200 OK", b"dAtE: then", b"SERVER: mine", b"Content-Length: 0"]


# Status


@pytest.mark.parametrize("status", ["200 OK", "404 ", "599 x", "200 caf\xe9", "200 a\tb", "207 Multi-Status"])
def test_statuses(status: str) -> None:
    assert lines(started(status).one(b"", DATE))[0] == b"HTTP/1.1 " + status.encode("latin-1")


@pytest.mark.parametrize(
    "status",
    [
        *[
            "",
            "200",
            "20 OK",
            "2000 OK",
            "OK",
            "x00 OK",
            " 200 OK",
            "200  \n",
            "200 OK\r\n",
            "200 OK\r\nX: y",
            "200 \r",
        ],
        *["100 Continue", "101 Switching Protocols", "103 Early Hints", "199 x", "099 x", "600 x", "999 x", "000 x"],
        *[
            "200 a\0b",
            "200 \x7f",
            "200 \x1b[m",
            "200 \u20ac",
            "200\tOK",
            "200\xa0OK",
            "\u0662\u0660\u0660 OK",
            "-20 OK",
        ],
    ],
)
def test_bad_statuses(status: str) -> None:
    with pytest.raises(ApplicationError, match="status"):
        started(status)


@pytest.mark.parametrize("status", [200, b"200 OK", None, ("200 OK",)])
def test_a_status_of_another_type(status: Any) -> None:
    with pytest.raises(ApplicationError, match="not a str"):
        started(status)


def test_a_str_subclass_is_text_like_any_other() -> None:
    class Text(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "200 OK\r\nX: y"

        def encode(self, *_: Any) -> bytes:
            return b"\r\nX: y"

    answer = started(Text("200 OK"), [(Text("A"), Text("b"))]).one(b"", DATE)
    assert lines(answer) == [
        b"HTTP/1.1 200 OK",
        b"Server: stoker",
        b"Date: " + DATE,
        b"A: b",
        b"Content-Length: 0",
    ]


def test_many_reasons_do_not_fill_the_memory() -> None:
    for number in range(1000):
        assert lines(started(f"200 reason {number}").one(b"", DATE))[0] == b"HTTP/1.1 200 reason %d" % number


# Fields


@pytest.mark.parametrize(
    "header",
    [
        *[("", "x"), (" ", "x"), ("A B", "x"), ("A:", "x"), ("A ", "x"), (" A", "x"), ("A\r\n", "x"), ("A\n", "x")],
        *[
            ("A\0", "x"),
            ("A\t", "x"),
            ("(A)", "x"),
            ('"A"', "x"),
            ("caf\xe9", "x"),
            ("\u20ac", "x"),
            ("A\r\nB: c", "x"),
        ],
        *[("A", "\r"), ("A", "\n"), ("A", "x\r\nB: c"), ("A", "x\r\n\r\n<html>"), ("A", "x\n y"), ("A", "x\r\n y")],
        *[
            ("A", "\0"),
            ("A", "\x7f"),
            ("A", "\x1b[m"),
            ("A", "\x0b"),
            ("A", "\u20ac"),
            ("A", "\u010a"),
            ("A", "\u560d"),
        ],
    ],
)
def test_bad_headers(header: tuple[str, str]) -> None:
    with pytest.raises(ApplicationError, match="response header"):
        started("200 OK", [("Content-Type", "text/plain"), header])


@pytest.mark.parametrize("value", ["", " ", "caf\xe9", "a\tb", "a b", "\x80\xff", "x" * 100_000, "a: b; c=d, e"])
def test_values(value: str) -> None:
    assert b"A: " + value.encode("latin-1") in lines(started("200 OK", [("A", value)]).one(b"", DATE))


@pytest.mark.parametrize(
    "headers",
    [
        *[
            (),
            (("A", "b"),),
            {"A": "b"},
            "A: b",
            None,
            iter([("A", "b")]),
            [["A", "b"]],
            ["A: b"],
            [("A",)],
            [("A", "b", "c")],
        ],
        *[[(b"A", b"b")], [("A", b"b")], [(b"A", "b")], [("A", 5)], [("A", None)], [None], [("A", ["b"])]],
    ],
)
def test_headers_of_another_type(headers: Any) -> None:
    writer = begun()
    with pytest.raises(ApplicationError, match="response header"):
        writer.start("200 OK", headers)
    with pytest.raises(ApplicationError, match="start_response"):
        writer.one(b"", DATE)


@pytest.mark.parametrize("name", sorted(name.decode() for name in HOP_BY_HOP))
def test_hop_by_hop_fields_are_the_servers(name: str) -> None:
    with pytest.raises(ApplicationError, match="hop-by-hop"):
        started("200 OK", [(name.title(), "x")])


@pytest.mark.parametrize("value", ["close", "Close", "keep-alive, close", ", close"])
def test_connection_close_is_honoured(value: str) -> None:
    writer = started("200 OK", [("Connection", value)])
    answer = writer.one(b"", DATE)
    assert lines(answer)[-1] == b"Connection: close"
    assert answer.count(b"Connection") == 1
    assert not writer.keep_alive


def test_connection_close_of_one_response_is_not_that_of_the_next() -> None:
    writer = started("200 OK", [("Connection", "close")])
    writer.one(b"", DATE)
    writer.begin("GET", 1, True)
    writer.start("200 OK", [])
    assert b"Connection" not in writer.one(b"", DATE)
    assert writer.keep_alive


def test_connection_keep_alive_asks_for_nothing() -> None:
    writer = started("200 OK", [("Connection", "keep-alive")])
    assert b"Connection" not in writer.one(b"", DATE)
    writer = started("200 OK", [("Connection", "keep-alive")], keep_alive=False)
    assert b"Connection: close" in lines(writer.one(b"", DATE))


@pytest.mark.parametrize("value", ["upgrade", "close, x-internal", "Content-Length", '"close"'])
def test_other_options_of_connection(value: str) -> None:
    with pytest.raises(ApplicationError, match="Connection"):
        started("200 OK", [("Connection", value)])


@pytest.mark.parametrize("value", ["", " 5", "5 ", "+5", "-5", "0x5", "5_0", "5.0", "5, 5", "five", "\xb2", "9" * 30])
def test_bad_content_lengths(value: str) -> None:
    with pytest.raises(ApplicationError, match="Content-Length"):
        started("200 OK", [("Content-Length", value)])


def test_two_content_lengths() -> None:
    with pytest.raises(ApplicationError, match="more than one"):
        started("200 OK", [("Content-Length", "5"), ("content-length", "5")])


# Framing


def test_one_cut_at_its_length() -> None:
    writer = started("200 OK", [("Content-Length", "3")])
    assert writer.one(b"hello", DATE).endswith(b"Content-Length: 3\r\n\r\nhel")
    assert (writer.excess, writer.short, writer.keep_alive, writer.sent) == (True, False, True, 3)


def test_one_shorter_than_its_length() -> None:
    writer = started("200 OK", [("Content-Length", "9")])
    assert writer.one(b"hello", DATE).endswith(b"Content-Length: 9\r\nConnection: close\r\n\r\nhello")
    assert (writer.excess, writer.short, writer.keep_alive, writer.sent) == (False, True, False, 5)


def test_a_stream_in_chunks() -> None:
    writer = started("200 OK", [("X", "y")])
    assert lines(writer.head(DATE))[-1] == b"Transfer-Encoding: chunked"
    assert writer.frame(b"hello") == b"5\r\nhello\r\n"
    assert writer.frame(b"") == b""  # which would end the body
    assert writer.frame(b"x" * 300) == b"12c\r\n" + b"x" * 300 + b"\r\n"
    assert writer.file(1 << 40) == (b"10000000000\r\n", 1 << 40, b"\r\n")
    assert writer.file(0) == (b"", 0, b"")
    assert writer.end() == b"0\r\n\r\n"
    assert writer.keep_alive
    assert writer.sent == 305 + (1 << 40)


def test_a_stream_of_a_length() -> None:
    writer = started("200 OK", [("Content-Length", "8")])
    assert lines(writer.head(DATE))[-1] == b"Content-Length: 8"
    assert writer.frame(b"hello") == b"hello"
    assert writer.file(2) == (b"", 2, b"")
    assert not writer.excess
    assert writer.frame(b"xyz") == b"x"
    assert writer.excess
    assert writer.frame(b"more") == b""
    assert writer.file(5) == (b"", 0, b"")
    assert writer.end() == b""
    assert (writer.short, writer.keep_alive, writer.sent) == (False, True, 8)


def test_a_stream_shorter_than_its_length() -> None:
    writer = started("200 OK", [("Content-Length", "8")])
    writer.head(DATE)
    writer.frame(b"hello")
    assert writer.end() == b""
    assert (writer.short, writer.keep_alive) == (True, False)


def test_a_stream_to_http_1_0_ends_with_the_connection() -> None:
    writer = started(minor=0)
    assert lines(writer.head(DATE))[-1] == b"Connection: close"
    assert not writer.keep_alive
    assert writer.frame(b"hello") == b"hello"
    assert writer.end() == b""


def test_a_stream_of_a_length_to_http_1_0_keeps_the_connection() -> None:
    writer = started("200 OK", [("Content-Length", "5")], minor=0)
    assert lines(writer.head(DATE))[-2:] == [b"Content-Length: 5", b"Connection: keep-alive"]
    assert writer.keep_alive


@pytest.mark.parametrize("minor", [0, 1])
def test_a_connection_that_closes_says_so(minor: int) -> None:
    assert lines(started(minor=minor, keep_alive=False).one(b"", DATE))[-1] == b"Connection: close"


@pytest.mark.parametrize("minor", [0, 1])
@pytest.mark.parametrize("length", [None, "5"])
def test_head_has_no_body(minor: int, length: str | None) -> None:
    headers = [("Content-Length", length)] if length else []
    writer = started("200 OK", headers, method="HEAD", minor=minor)
    head = lines(writer.head(DATE))
    assert not writer.body_allowed
    assert (b"Content-Length: 5" in head) is bool(length)
    assert not any(line.startswith(b"Transfer-Encoding") for line in head)
    assert writer.frame(b"hello") == b""
    assert writer.file(5) == (b"", 0, b"")
    assert writer.end() == b""
    assert (writer.sent, writer.short, writer.excess, writer.keep_alive) == (0, False, False, True)


def test_head_in_one() -> None:
    assert lines(started(method="HEAD").one(b"hello", DATE))[-1] == b"Content-Length: 5"
    assert b"Content-Length" not in started(method="HEAD").one(b"", DATE)
    assert lines(started("200 OK", [("Content-Length", "7")], method="HEAD").one(b"", DATE))[-1] == b"Content-Length: 7"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_no_body_by_status(status: str) -> None:
    answer = lines(started(status).one(b"hello", DATE))
    assert len(answer) == 3
    writer = started(status)
    assert not writer.body_allowed
    assert len(lines(writer.head(DATE))) == 3
    assert writer.frame(b"hello") == b""
    assert writer.end() == b""
    assert writer.keep_alive


def test_a_length_of_204_is_left_out_and_one_of_304_is_not() -> None:
    headers = [("Content-Length", "5")]
    assert len(lines(started("204 No Content", headers).one(b"", DATE))) == 3
    assert lines(started("304 Not Modified", headers).one(b"", DATE))[-1] == b"Content-Length: 5"
    writer = started("204 No Content", headers)
    assert writer.length == -1
    writer.head(DATE)
    assert writer.end() == b""
    assert not writer.short


def test_start_again_before_the_head() -> None:
    writer = started("200 OK", [("Content-Length", "5"), ("Connection", "close")])
    writer.start("500 Oops", [("X", "y")])
    assert writer.status == 500
    assert lines(writer.head(DATE)) == [
        b"HTTP/1.1 500 Oops",
        b"Server: stoker",
        b"Date: " + DATE,
        b"X: y",
        b"Transfer-Encoding: chunked",
        b"Connection: close",  # what was asked for once holds: the connection may only close earlier, never later
    ]


def test_start_after_the_head() -> None:
    writer = started()
    writer.head(DATE)
    with pytest.raises(ApplicationError, match="had been sent"):
        writer.start("200 OK", [])


def test_the_order_of_calls() -> None:
    writer = begun()
    for call in (lambda: writer.one(b"", DATE), lambda: writer.head(DATE)):
        with pytest.raises(ApplicationError, match="without calling start_response"):
            call()
    writer.start("200 OK", [])
    for call in (lambda: writer.frame(b"x"), lambda: writer.file(1), writer.end):  # type: ignore[assignment]
        with pytest.raises(RuntimeError, match="has not been sent"):
            call()
    writer.head(DATE)
    with pytest.raises(RuntimeError, match="has been sent"):
        writer.head(DATE)


def test_nothing_is_sent_after_the_end() -> None:
    """An application may keep the write() of PEP 3333 and call it later; that may not get into the next response."""
    writer = started()
    writer.head(DATE)
    assert writer.end() == b"0\r\n\r\n"
    assert writer.end() == b""
    with pytest.raises(ApplicationError, match="had ended"):
        writer.frame(b"late")
    with pytest.raises(ApplicationError, match="had ended"):
        writer.file(5)
    writer = started()
    writer.one(b"hello", DATE)
    assert writer.end() == b""
    with pytest.raises(ApplicationError, match="had ended"):
        writer.frame(b"late")
    writer.begin("GET", 1, True)
    writer.start("200 OK", [])
    writer.head(DATE)
    assert writer.frame(b"x") == b"1\r\nx\r\n"


@pytest.mark.parametrize("block", ["text", bytearray(b"x"), memoryview(b"x"), None, 5, ["x"]])
def test_blocks_of_another_type(block: Any) -> None:
    with pytest.raises(ApplicationError, match="not bytes"):
        started().one(block, DATE)
    writer = started()
    writer.head(DATE)
    with pytest.raises(ApplicationError, match="not bytes"):
        writer.frame(block)


def test_a_block_that_lies_about_its_length() -> None:
    class Block(bytes):
        def __len__(self) -> int:
            return 1

    writer = started()
    writer.head(DATE)
    assert writer.frame(Block(b"hello")) == b"5\r\nhello\r\n"
    assert started().one(Block(b"hello"), DATE).endswith(b"Content-Length: 5\r\n\r\nhello")


# An independent reader


def read_back(method: str, answers: bytes) -> list[tuple[int, bytes, bool]]:
    """What a client (h11) that sent the same request again and again gets: status, body, is the connection kept."""
    client = h11.Connection(h11.CLIENT)
    client.receive_data(answers)
    client.receive_data(b"")
    got = []
    while client.trailing_data[0]:
        client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        client.send(h11.EndOfMessage())
        response = client.next_event()
        assert type(response) is h11.Response
        body = b""
        while type(part := client.next_event()) is h11.Data:
            body += bytes(part.data)
        assert type(part) is h11.EndOfMessage
        kept = client.our_state is h11.DONE
        got.append((response.status_code, body, kept))
        if not kept:
            break
        client.start_next_cycle()
    return got


TEXT = st.text(st.characters(max_codepoint=0x100), max_size=12)
NAMES = st.one_of(
    st.sampled_from(["X-A", "Content-Length", "Connection", "Date", "Set-Cookie", "Transfer-Encoding"]), TEXT
)
VALUES = st.one_of(
    st.sampled_from(["0", "3", "5", "close", "chunked", "a\r\nb", "\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"]), TEXT
)
STATUSES = st.one_of(st.sampled_from(["200 OK", "204 No", "304 No", "404 ", "500 x", "100 x", "200 a\nb"]), TEXT)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    method=st.sampled_from(["GET", "HEAD", "POST"]),
    status=STATUSES,
    headers=st.lists(st.tuples(NAMES, VALUES), max_size=3),
    blocks=st.lists(st.binary(max_size=6), max_size=4),
    at_once=st.booleans(),
)
def test_nothing_splits_a_response(
    method: str, status: str, headers: Headers, blocks: list[bytes], at_once: bool
) -> None:
    """Two such responses in a row are read as two, with the body that was given, unless the first is the last."""
    writer = ResponseWriter()
    sent = b""
    expected = []
    for _ in range(2):
        writer.begin(method, 1, True)
        try:
            writer.start(status, headers)
        except ApplicationError:
            return
        if at_once:
            sent += writer.one(b"".join(blocks), DATE)
        else:
            sent += writer.head(DATE) + b"".join([writer.frame(block) for block in blocks]) + writer.end()
        if writer.short:
            return
        body = b"".join(blocks)[: writer.length if writer.length >= 0 else None]
        expected.append((int(status[:3]), body if writer.body_allowed else b"", writer.keep_alive))
        if not writer.keep_alive:
            break
    assert read_back(method, sent) == expected


# What the server says itself


def test_refusals() -> None:
    assert refusal(400, "no Host", DATE, b"stoker") == (
        b"HTTP/1.1 400 Bad Request\r\nServer: stoker\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 25\r\nConnection: close\r\n\r\n"
        b"400 Bad Request: no Host\n"
    )
    assert read_back("GET", refusal(503, "caf\xe9 \r\n\r\n", DATE, b"")) == [
        (503, "503 Service Unavailable: caf\xe9 \r\n\r\n\n".encode(), False)
    ]
    assert refusal(500, "x", DATE, b"", head_only=True).endswith(b"Connection: close\r\n\r\n")


@pytest.mark.parametrize("status", [400, 408, 413, 414, 417, 431, 500, 501, 503, 505])
def test_every_status_of_the_server_has_its_phrase(status: int) -> None:
    assert not refusal(status, "x", DATE, b"").startswith(b"HTTP/1.1 %d Error" % status)


def test_continue() -> None:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="POST", target="/", headers=[("Host", "a"), ("Content-Length", "1")]))
    client.receive_data(CONTINUE)
    assert type(client.next_event()) is h11.InformationalResponse


@pytest.mark.parametrize(
    ("seconds", "date"),
    [
        (0, b"Thu, 01 Jan 1970 00:00:00 GMT"),
        (784111777, b"Sun, 06 Nov 1994 08:49:37 GMT"),
        (951782400, b"Tue, 29 Feb 2000 00:00:00 GMT"),
        (4102444799, b"Thu, 31 Dec 2099 23:59:59 GMT"),
    ],
)
def test_dates(seconds: int, date: bytes) -> None:
    assert http_date(seconds) == date
