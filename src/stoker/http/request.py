"""Requests out of received bytes: the head of HTTP/1.1, strict (RFC 9112 sections 2 to 6).

`RequestParser` is pulled: `feed` it bytes, ask for `next`, read the `body`. It raises nothing for what a client sends;
`next` answers REFUSED and `error` carries the status and the reason.

What a proxy and a server could read differently is refused, since that is how requests are smuggled. Where the RFCs
leave a choice, the choice is:

- Two empty lines before a request line are skipped, as CRLF only (RFC 9112 section 2.2).
- Content-Length is refused when repeated or listed, even with equal values. Leading zeros are taken.
- Transfer-Encoding is ``chunked``, once, in a request of HTTP/1.1, without Content-Length; else 400 as sections 6.1 and
  6.3 ask, or 501 where only a coding before the final ``chunked`` is unknown.
- An empty Host is taken (section 3.2), and means that the address of the listener decides.
- The authority of an absolute-form target replaces Host, which is checked all the same; user information in it is 400.
- CONNECT is 501, as there is no tunnel. A scheme other than http and https is 400.
- Expect is 417 with anything but ``100-continue``, which HTTP/1.0 cannot ask for: there it is ignored.
"""

from __future__ import annotations

from typing import Final

from stoker.http import grammar
from stoker.http.body import Limits, Reader

try:
    import cython
except ImportError:
    from stoker import nocython as cython

if not cython.compiled:
    # Compiled, these are of body.pxd, scan.pxd and request.pxd.
    from stoker.http.body import BAD, CR, FIELDS, LF, LINE, SP, WHOLE
    from stoker.http.scan import path, query, starts, token

    SLASH, QUESTION = 47, 63

__all__ = ["MORE", "REFUSED", "REQUEST", "Limits", "RequestParser"]

# What `next` answers.
MORE: Final = 0
REQUEST: Final = 1
REFUSED: Final = -1

#: Empty lines that are skipped before a request line.
EMPTY_LINES: Final = 2
empty_lines = EMPTY_LINES

#: Bytes of field lines above which a head is not remembered: an idle connection shall stay small.
MEMO: Final = 4096
memo_limit = MEMO

#: A Content-Length with more digits than this, leading zeros aside, is above every limit.
LENGTH_DIGITS: Final = 18

TOKENS = grammar.TOKEN_TABLE
GET = b"GET "
HTTP_1_1 = b" HTTP/1.1\r\n"
HTTP_1_0 = b" HTTP/1.0\r\n"
METHODS = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE")}


class RequestParser(Reader):
    """The requests of one connection, one after another.

    After `next` said REQUEST, and until it is called again:

    - `method`; `target` as it was sent; `path`, still percent-encoded, ``*`` for ``OPTIONS *``; `query` without ``?``;
      `scheme`, ``b""`` unless the target is in absolute-form, in lower case; `host`, the effective authority: the
      target's in absolute-form, else the Host field's, else ``b""``; `minor`, 0 or 1;
    - `fields`, name in lower case and value without white space around it, in the order of the wire. **Nobody changes
      this list**: when the field lines of the next head are the same bytes, it is the same list again. Host stands in
      it as it was sent, so with a `scheme` it may differ from `host`;
    - `dropped`, the names of fields left out for their underscore, which most applications cannot tell from a hyphen;
    - `length`, Content-Length, 0 without a body, -1 if it is chunked; `keep_alive`; `expect_continue`;
    - `body()`, `complete`, `trailers`: see `Reader`.

    `started` says after MORE whether a part of a head is in hand, empty lines before it aside. After REFUSED `method`
    is that of the refused request if its request line was right, else ``""``: the answer to a HEAD has no body.
    """

    def __init__(self, limits: Limits, refuse_underscores: bool = False) -> None:
        Reader.__init__(self, limits, refuse_underscores)
        self.method = ""
        self.target = self.path = self.query = self.host = self.scheme = b""
        self.minor = 1
        self.fields: list[tuple[bytes, bytes]] = []
        self.length = 0
        self.keep_alive = False
        self.expect_continue = False
        self.started = False
        self.empty = 0  # empty lines skipped before this request line
        self.memo: bytes | None = None  # the field lines of the last head, of which `fields` was made
        self.memo_minor = 1
        self.memo_dropped: list[bytes] = []
        self.authority = b""  # of a target in absolute-form
        # The fields that decide, as they came.
        self.named_host: bytes | None = None
        self.named_length: bytes | None = None
        self.named_codings: bytes | None = None
        self.named_options: bytes | None = None
        self.named_expectations: bytes | None = None

    def next(self) -> int:
        """Go on to the next request: REQUEST, MORE (bytes are missing: feed) or REFUSED (`error` says why).

        Called when the former request's body is complete; RuntimeError otherwise.
        """
        if self.error is not None:
            return REFUSED
        if not self.complete:
            raise RuntimeError("the body of the former request has not been read to its end")
        if not self.join():
            return MORE
        if self.phase == LINE:
            answer = self.request_line()
            if answer != WHOLE:
                return answer
            if self.recall():
                return REQUEST
        answer = self.field_lines()
        if answer != WHOLE:
            return answer
        if not self.settle():
            return REFUSED
        self.remember()
        return REQUEST

    def request_line(self) -> int:
        """Read the request line (RFC 9112 section 3). Return WHOLE, WAIT or BAD."""
        data = self.data
        raw = data
        end = self.size
        start = self.at
        while start < end and raw[start] == CR:
            if self.empty == empty_lines:
                return self.refuse(400, "too many empty lines before a request line")
            if start + 1 == end:
                self.started = False
                answer = self.wait(start)
                self.room = 0  # the next byte decides
                return answer
            if raw[start + 1] != LF:
                return self.refuse(400, "a CR that no LF follows")
            self.empty += 1
            start += 2
        self.started = start < end
        if start == end:
            return self.wait(start)
        if not TOKENS[raw[start]]:
            return self.refuse(400, "this is not HTTP" if raw[start] != LF else "an LF that no CR precedes")
        self.method = ""
        stop = token(raw, start, end)
        if stop == end or raw[stop] != SP:
            return self.fault(start, stop, "a bad method")
        begin = stop + 1
        mark = path(raw, begin, end)
        after = mark
        if mark < end and raw[mark] == QUESTION:
            after = query(raw, mark + 1, end)
        if starts(raw, after, end, HTTP_1_1):
            self.minor = 1
        elif starts(raw, after, end, HTTP_1_0):
            self.minor = 0
        else:
            answer = self.odd_version(start, after)
            if answer != WHOLE:
                return answer
        length = after + len(" HTTP/1.1") - start
        if length > self.bound():
            return self.too_long()
        self.at = start + length + 2
        self.take_method(start, stop)
        if begin == after or raw[begin] != SLASH or self.method == "CONNECT":
            self.target = raw[begin:after]
            if not self.odd_target():
                return BAD
        elif after - begin != len(self.target) or not starts(raw, begin, end, self.target):
            self.take_target(begin, mark, after)  # else it is the last one again; many a client of an API has but one
        self.used = length + 2
        self.empty = 0
        self.phase = FIELDS
        return WHOLE

    def take_method(self, start: int, stop: int) -> None:
        """Set `method`: for the usual ones always the same object."""
        if starts(self.data, start, self.size, GET):
            self.method = "GET"
        else:
            name = self.data[start:stop]
            self.method = METHODS.get(name) or name.decode("ascii")

    def take_target(self, begin: int, mark: int, after: int) -> None:
        """Set `target` in origin-form, and what it is made of."""
        self.target = self.data[begin:after]
        self.scheme = self.query = b""
        self.path = self.target
        if mark < after:
            self.path = self.data[begin:mark]
            self.query = self.data[mark + 1 : after]

    def odd_version(self, start: int, stop: int) -> int:
        """Deal with a request line whose target ends at `stop` with no `` HTTP/1.1`` or ``1.0`` after it.

        Return WHOLE for a higher minor version, which is served as 1.1 (RFC 9110 section 6.2), else WAIT or BAD.
        """
        raw = self.data
        answer = self.judge(start, stop)
        if answer != WHOLE:
            return answer
        if raw[stop] != SP:
            missing = raw[stop] == CR or raw[stop] == LF
            return self.refuse(400, "no HTTP version" if missing else "a byte that may not be in a request target")
        line = self.data.index(b"\n", stop)
        version = grammar.is_version(self.data, stop + 1, line - 1)
        if version is None or raw[line - 1] != CR:
            return self.refuse(400, "a bad request line: not a method, a target and a version with one space between")
        if version[1] != b"1":
            return self.refuse(505, "HTTP/1.0 and HTTP/1.1 are served here")
        self.minor = 1
        return WHOLE

    def odd_target(self) -> bool:
        """Take the request target apart if it is not a path (RFC 9112 section 3.2). False: refused."""
        target = self.target
        self.scheme = self.query = b""
        self.path = target
        if self.method == "CONNECT":
            if grammar.authority_form(target) is None or not grammar.is_host(target):
                return self.refuse(400, "the target of CONNECT is not a host and a port") == WHOLE
            return self.refuse(501, "CONNECT: there is no tunnel here") == WHOLE
        if target == b"*" and self.method == "OPTIONS":
            return True
        uri = grammar.absolute_form(target)
        if uri is None:
            return self.refuse(400, "the request target is neither a path nor an absolute URI") == WHOLE
        scheme = uri[1].lower()
        authority = uri[2]
        if scheme not in (b"http", b"https"):
            return self.refuse(400, "the scheme of the request target is neither http nor https") == WHOLE
        if b"@" in authority:
            return self.refuse(400, "user information in the request target") == WHOLE
        if not authority or authority.startswith(b":") or not grammar.is_host(authority):
            return self.refuse(400, "a bad host in the request target") == WHOLE
        self.scheme = scheme
        self.authority = authority
        self.path = uri[3] or (b"*" if uri[4] is None and self.method == "OPTIONS" else b"/")
        self.query = uri[4] or b""
        return True

    def recall(self) -> bool:
        """Take the field lines from the memo, if the next bytes are the last head's again; else begin with them."""
        raw = self.data
        memo = self.memo
        if memo is not None and self.minor == self.memo_minor and starts(raw, self.at, self.size, memo):
            used = self.used + len(memo)
            if used <= self.limits.head:
                self.at += len(memo)
                self.dropped = self.memo_dropped
                self.begin_request()
                return True
        self.block = self.at
        self.fields = self.section = []
        self.dropped = []
        self.count = 0
        self.named_host = self.named_length = self.named_codings = None
        self.named_options = self.named_expectations = None
        return False

    def remember(self) -> None:
        """Keep the field lines for `recall`, if they are few and in one piece."""
        raw = self.data
        self.memo = None
        if self.block >= 0 and self.at - self.block <= memo_limit:
            self.memo = raw[self.block : self.at]
            self.memo_minor = self.minor
            self.memo_dropped = self.dropped

    def begin_request(self) -> None:
        """Set what depends on the request line and the field lines together."""
        if self.scheme:
            self.host = self.authority
        elif self.named_host is None:
            self.host = b""
        else:
            self.host = self.named_host
        self.started = False
        self.begin_body(self.length)

    def control(self, name: bytes, content: bytes) -> int:
        """Keep a field that decides about the message, for `settle`. Return WHOLE or BAD."""
        if self.phase != FIELDS:
            return Reader.control(self, name, content)
        if name == b"host":
            if self.named_host is not None:
                return self.refuse(400, "more than one Host")
            self.named_host = content
        elif name == b"content-length":
            if self.named_length is not None:
                return self.refuse(400, "more than one Content-Length")
            self.named_length = content
        elif name == b"transfer-encoding":
            self.named_codings = _listed(self.named_codings, content)
        elif name == b"connection":
            self.named_options = _listed(self.named_options, content)
        else:
            self.named_expectations = _listed(self.named_expectations, content)
        return WHOLE

    def settle(self) -> bool:
        """Draw the conclusions from the fields that decide, when the head is whole. False: refused.

        They must not depend on anything of the request line but the version: `recall` uses them again.
        """
        host = self.named_host
        if host is None:
            if self.minor == 1:
                return self.refuse(400, "no Host") == WHOLE
        elif not grammar.is_host(host):
            return self.refuse(400, "a bad Host") == WHOLE
        self.keep_alive = self.minor == 1
        if self.named_options is not None and not self.connection_options(self.named_options):
            return False
        self.length = 0
        if self.named_codings is not None:
            if not self.transfer_codings(self.named_codings):
                return False
        elif self.named_length is not None and not self.content_length(self.named_length):
            return False
        self.expect_continue = False
        if self.named_expectations is not None and not self.expectations(self.named_expectations):
            return False
        self.begin_request()
        return True

    def connection_options(self, value: bytes) -> bool:
        """Read Connection (RFC 9110 section 7.6.1, RFC 9112 section 9.3). False: refused."""
        options = grammar.members(value.lower())
        for option in options:
            if grammar.is_token(option) is None:
                return self.refuse(400, "Connection is not a list of tokens") == WHOLE
        self.keep_alive = b"close" not in options and (self.minor == 1 or b"keep-alive" in options)
        return True

    def transfer_codings(self, value: bytes) -> bool:
        """Read Transfer-Encoding (RFC 9112 section 6.1 and 6.3). False: refused."""
        if self.named_length is not None:
            return self.refuse(400, "Transfer-Encoding beside Content-Length") == WHOLE
        if self.minor == 0:
            return self.refuse(400, "Transfer-Encoding in HTTP/1.0") == WHOLE
        value = value.lower()
        if value != b"chunked":
            codings = [coding.strip(b" \t") for coding in value.split(b",")]
            if codings.pop() != b"chunked" or b"chunked" in codings or b"" in codings:
                return self.refuse(400, "Transfer-Encoding is not chunked once, at the end") == WHOLE
            return self.refuse(501, "a transfer coding other than chunked") == WHOLE
        self.length = -1
        return True

    def content_length(self, value: bytes) -> bool:
        """Read Content-Length (RFC 9110 section 8.6). False: refused."""
        if not value.isdigit():
            return self.refuse(400, "Content-Length is not a number") == WHOLE
        digits = value.lstrip(b"0")
        length = int(digits or b"0") if len(digits) <= LENGTH_DIGITS else -1
        if length < 0 or length > self.limits.body:
            return self.refuse(413, f"the body is longer than {self.limits.body} bytes") == WHOLE
        self.length = length
        return True

    def expectations(self, value: bytes) -> bool:
        """Read Expect (RFC 9110 section 10.1.1). False: refused."""
        for expectation in grammar.members(value.lower()):
            if expectation != b"100-continue":
                return self.refuse(417, "an expectation other than 100-continue") == WHOLE
            self.expect_continue = self.minor == 1 and self.length != 0
        return True


def _listed(former: bytes | None, value: bytes) -> bytes:
    """Return the value of a list that comes in several field lines (RFC 9110 section 5.3)."""
    return value if former is None else former + b", " + value
