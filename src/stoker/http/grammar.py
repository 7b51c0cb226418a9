"""The grammar of HTTP/1.1 as sets of bytes, of which the tables of the byte loops and the patterns are made.

Sources: RFC 9110 (HTTP semantics), RFC 9112 (HTTP/1.1), RFC 3986 (URI). Names follow the grammar of the RFCs. A *table*
has 256 entries, 1 for each byte that belongs to the set.

Where Stoker differs from the letter of the grammar, on purpose:

- In a request target square brackets and the vertical bar, and in a query also braces, backslash, circumflex and
  backquote, are taken although RFC 3986 wants them percent-encoded: every browser sends them as they are (WHATWG URL
  Standard, percent-encode sets), and none of them can move the end of the line, of the path or of the query. Refused
  are quotation mark, angle brackets, the number sign (a fragment), white space, control characters and bytes above 126.
- A ``%`` need not be followed by two hexadecimal digits: WSGI hands the path on decoded where it can be, and nothing of
  the framing depends on it.
- An ``HTTP/1.x`` above 1.1 is served as 1.1, as RFC 9110 section 6.2 asks.
"""

from __future__ import annotations

import re
from typing import Final

DIGIT: Final = b"0123456789"
ALPHA: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
HEXDIG: Final = DIGIT + b"ABCDEFabcdef"

#: RFC 9110 section 5.6.2: what a method, a field name or a connection option is made of.
TCHAR: Final = b"!#$%&'*+-.^_`|~" + DIGIT + ALPHA

#: RFC 9110 section 5.5: field-vchar (VCHAR and obs-text), SP and HTAB. No other control character, no NUL, CR, LF, DEL.
FIELD: Final = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))

#: RFC 3986 section 2.
UNRESERVED: Final = b"-._~" + DIGIT + ALPHA
SUB_DELIMS: Final = b"!$&'()*+,;="
PCHAR: Final = UNRESERVED + SUB_DELIMS + b":@%"

#: The path of a request target, with its slashes, and what browsers leave as it is.
PATH: Final = PCHAR + b"/" + b"[]|"

#: The query of a request target, and what browsers leave as it is.
QUERY: Final = PATH + b"?" + b"{}\\^`"


def table(allowed: bytes) -> bytes:
    """Return the table of a set: 256 bytes, 1 at the place of each byte in `allowed`, 0 elsewhere."""
    return bytes(1 if code in allowed else 0 for code in range(256))


def charset(allowed: bytes) -> bytes:
    """Return the set as a character class of a regular expression."""
    return b"[" + re.escape(allowed) + b"]"


#: Field names that browsers, proxies and libraries send: compiled, each is made once and not at each request.
WELL_KNOWN: Final = (
    b"accept accept-charset accept-encoding accept-language access-control-request-headers "
    b"access-control-request-method authorization cache-control connection content-encoding content-length "
    b"content-type cookie date dnt expect forwarded from host if-match if-modified-since if-none-match if-range "
    b"if-unmodified-since keep-alive origin pragma priority purpose range referer sec-ch-ua sec-ch-ua-mobile "
    b"sec-ch-ua-platform sec-fetch-dest sec-fetch-mode sec-fetch-site sec-fetch-user sec-gpc "
    b"sec-websocket-extensions sec-websocket-key sec-websocket-protocol sec-websocket-version te traceparent "
    b"tracestate trailer transfer-encoding upgrade upgrade-insecure-requests user-agent via x-csrftoken "
    b"x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-proto x-real-ip x-request-id "
    b"x-requested-with "
).split()

TOKEN_TABLE: Final = table(TCHAR)
FIELD_TABLE: Final = table(FIELD)
PATH_TABLE: Final = table(PATH)
QUERY_TABLE: Final = table(QUERY)

# The quantifiers that end in "+" never give back what they took: a pattern that fails does so in linear time.
_TOKEN = charset(TCHAR) + b"++"
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*+"'
_BWS = rb"[ \t]*+"

#: One token, and nothing else.
is_token: Final = re.compile(_TOKEN).fullmatch

#: A chunk-size line with extensions, without its CRLF (RFC 9112 section 7.1.1); group 1 is the size.
is_extended_size: Final = re.compile(
    b"(%b++)(?:%b;%b%b(?:%b=%b(?:%b|%b))?)++" % (charset(HEXDIG), _BWS, _BWS, _TOKEN, _BWS, _BWS, _TOKEN, _QUOTED)
).fullmatch

# IPv6address of RFC 3986 section 3.2.2: eight groups of 16 bits, or fewer around one "::"; the last two may be an IPv4
# address.
_BYTE = rb"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rb"(?:" + _BYTE + rb"\.){3}" + _BYTE
_GROUP = rb"[0-9A-Fa-f]{1,4}"
_LAST = rb"(?:" + _GROUP + b":" + _GROUP + b"|" + _IPV4 + b")"


def _ipv6() -> bytes:
    forms = [b"(?:" + _GROUP + b":){6}" + _LAST, b"::(?:" + _GROUP + b":){5}" + _LAST]
    for after in range(4, -1, -1):  # groups between "::" and the last 32 bits; before it up to 5 - after, then
        before = b"(?:(?:" + _GROUP + b":){0,%d}" % (4 - after) + _GROUP + b")?"
        forms.append(before + b"::(?:" + _GROUP + b":){%d}" % after + _LAST)
    forms.append(b"(?:(?:" + _GROUP + b":){0,5}" + _GROUP + b")?::" + _GROUP)
    forms.append(b"(?:(?:" + _GROUP + b":){0,6}" + _GROUP + b")?::")
    return b"(?:" + b"|".join(forms) + b")"


_IPVFUTURE = rb"[vV][0-9A-Fa-f]+\." + charset(UNRESERVED + SUB_DELIMS + b":") + b"+"
_REG_NAME = b"(?:" + charset(UNRESERVED + SUB_DELIMS) + b"++|%[0-9A-Fa-f]{2})*+"
_HOST = re.compile(rb"(?:\[(?:" + _ipv6() + b"|" + _IPVFUTURE + rb")\]|" + _REG_NAME + rb")(?::([0-9]*))?").fullmatch

MAX_PORT: Final = 65535


_hosts: set[bytes] = set()  # hosts that were found right: a server is asked for the same few again and again
_MANY_HOSTS: Final = 256
_LONG_HOST: Final = 256


def is_host(value: bytes) -> bool:
    """Say whether `value` is ``uri-host [ ":" port ]`` (RFC 9110 section 7.2); an empty one is.

    Beyond the grammar, a port above 65535 is refused: no connection can have been made to it.
    """
    if value in _hosts:
        return True
    match = _HOST(value)
    if match is None:
        return False
    port = (match[1] or b"").lstrip(b"0")
    if len(port) > len(b"65535") or int(port or b"0") > MAX_PORT:
        return False
    if len(_hosts) < _MANY_HOSTS and len(value) <= _LONG_HOST:
        _hosts.add(value)
    return True


#: scheme ":" "//" authority, then path and query (RFC 9112 section 3.2.2); the authority is checked by ``is_host``.
absolute_form: Final = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://([^/?]*)([^?]*)(?:\?(.*))?", re.DOTALL).fullmatch

#: A request target in authority-form, which only CONNECT has (RFC 9112 section 3.2.3).
authority_form: Final = re.compile(rb"[^/?@]+:[0-9]+").fullmatch

#: A well-formed HTTP version (RFC 9112 section 2.3).
is_version: Final = re.compile(rb"HTTP/([0-9])\.([0-9])").fullmatch


def members(value: bytes) -> list[bytes]:
    """Return the members of a list in a field value (RFC 9110 section 5.6.1), empty ones left out."""
    return [member for part in value.split(b",") if (member := part.strip(b" \t"))]


#: Fields that decide about the message or the connection: they are looked at as they are parsed.
CONTROL: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"})

#: Fields that may not be in a trailer section: framing, routing and connection control (RFC 9110 section 6.5.1).
NOT_IN_TRAILERS: Final = CONTROL | {b"trailer", b"te", b"upgrade", b"keep-alive", b"proxy-connection"}
