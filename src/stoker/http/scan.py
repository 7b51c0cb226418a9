"""The scanning primitives of the parser: where a token, a field value, a target, a line ends, and what a chunk size is.

This is the one place where compiled and interpreted code differ. Compiled, a primitive is a loop over bytes with a
table, at a nanosecond a byte; interpreted, such a loop would cost 50 times that, so a primitive is one search of the
standard library. The loops run in plain Python as well: a test holds the two forms equal. All else is one source.

Each takes the bytes, the place to start at and the place to end before, and looks at nothing outside of these.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, cast

from stoker.http import grammar

try:
    import cython
except ImportError:
    from stoker import nocython as cython

TOKENS = grammar.TOKEN_TABLE
FIELDS = grammar.FIELD_TABLE
PATHS = grammar.PATH_TABLE
QUERIES = grammar.QUERY_TABLE
DIGITS = bytes(int(chr(code), 16) if code in grammar.HEXDIG else 255 for code in range(256))

token_table = TOKENS
field_table = FIELDS
path_table = PATHS
query_table = QUERIES
digit_table = DIGITS

#: A larger chunk size is given as this: above any sensible body limit, and sixteen times it still fits a C integer.
HUGE: Final = 1 << 58
huge = HUGE

if not cython.compiled:
    SLOTS, FACTOR = 512, 43  # as in scan.pxd


def place(name: bytes) -> int:
    """Return the place of a field name, in lower case, among the well-known: the hash that `lowered` makes in C."""
    mixed = 0
    for byte in name:
        mixed = (mixed * FACTOR + byte) & 0xFFFFFFFF
    return (mixed ^ (mixed >> 15)) & (SLOTS - 1)


def well_known() -> list[bytes | None]:
    """Return the well-known field names, each at its place."""
    places: list[bytes | None] = [None] * SLOTS
    for name in grammar.WELL_KNOWN:
        places[place(name)] = name
    return places


names = well_known()


def token_loop(data: bytes, start: int, end: int) -> int:
    """Return the place of the first byte that is no tchar (RFC 9110 section 5.6.2), or `end`."""
    while start < end and token_table[data[start]]:
        start += 1
    return start


def value_loop(data: bytes, start: int, end: int) -> int:
    """Return the place of the first byte that may not be in a field value (RFC 9110 section 5.5), or `end`."""
    while start < end and field_table[data[start]]:
        start += 1
    return start


def path_loop(data: bytes, start: int, end: int) -> int:
    """Return the place of the first byte that may not be in the path of a request target, or `end`."""
    while start < end and path_table[data[start]]:
        start += 1
    return start


def query_loop(data: bytes, start: int, end: int) -> int:
    """Return the place of the first byte that may not be in the query of a request target, or `end`."""
    while start < end and query_table[data[start]]:
        start += 1
    return start


def line_end_loop(data: bytes, start: int, end: int) -> int:
    """Return the place of the first LF, or -1."""
    while start < end:
        if data[start] == 10:
            return start
        start += 1
    return -1


def chunk_size_loop(data: bytes, start: int, end: int) -> int:
    """Return the value of the hexadecimal digits from `start` to `end`, at most HUGE; -1 if they are anything else."""
    if start >= end:
        return -1
    size = 0
    while start < end:
        digit = digit_table[data[start]]
        if digit > 15:
            return -1
        if size < huge:
            size = size * 16 + digit
        start += 1
    return size if size < huge else huge


if not cython.compiled:
    # The same five by searches of the standard library; compiled, scan.pxd gives these names to the loops.
    def _run(allowed: bytes) -> Callable[[bytes, int, int], re.Match[bytes]]:
        """Return a search for the longest run of `allowed`; it always matches, if only nothing."""
        match = re.compile(grammar.charset(allowed) + b"*").match
        return cast("Callable[[bytes, int, int], re.Match[bytes]]", match)

    _token = _run(grammar.TCHAR)
    _value = _run(grammar.FIELD)
    _path = _run(grammar.PATH)
    _query = _run(grammar.QUERY)
    _digits = re.compile(grammar.charset(grammar.HEXDIG) + b"+").fullmatch

    def token(data: bytes, start: int, end: int) -> int:
        """See `token_loop`."""
        return _token(data, start, end).end()

    def value(data: bytes, start: int, end: int) -> int:
        """See `value_loop`."""
        return _value(data, start, end).end()

    def path(data: bytes, start: int, end: int) -> int:
        """See `path_loop`."""
        return _path(data, start, end).end()

    def query(data: bytes, start: int, end: int) -> int:
        """See `query_loop`."""
        return _query(data, start, end).end()

    def line_end(data: bytes, start: int, end: int) -> int:
        """See `line_end_loop`."""
        return data.find(b"\n", start, end)

    def chunk_size(data: bytes, start: int, end: int) -> int:
        """See `chunk_size_loop`."""
        digits = _digits(data, start, end)
        return -1 if digits is None else min(int(digits[0], 16), HUGE)

    # What else scan.pxd has as inline functions on pointers.

    def starts(data: bytes, at: int, end: int, what: bytes) -> bool:
        """Say whether `what` stands at `at`, whole."""
        return data.startswith(what, at, end)

    def trimmed(data: bytes, start: int, end: int) -> bytes:
        """Return the bytes from `start` to `end` without optional white space around them (RFC 9110 section 5.6.3)."""
        return data[start:end].strip(b" \t")

    def lowered(data: bytes, start: int, end: int) -> bytes:
        """Return a field name in lower case; compiled, a well-known one is the same object each time."""
        return data[start:end].lower()
