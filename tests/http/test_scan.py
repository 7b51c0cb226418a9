"""The two forms of the scanning primitives against each other: byte loops, and searches of the standard library.

The searches are loaded from the source beside whatever runs, so with compiled modules the loops are the compiled ones.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoker.http import grammar, scan


def from_source() -> ModuleType:
    """The module as plain Python, even if `stoker.http.scan` is compiled."""
    path = Path(grammar.__file__).with_name("scan.py")
    spec = importlib.util.spec_from_file_location("scan_from_source", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# A busy machine is slow, and that is no failure.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
SEARCHES = from_source()
PRIMITIVES = ["token", "value", "path", "query", "line_end", "chunk_size"]

# Long runs of what a primitive takes, broken by what it may not, are likelier here than in plain random bytes.
MARKS = [bytes((code,)) for code in b'aZ0fFG_- \t\r\n\0\x7f\x80\xff/?#%[]|{\\^`"<:;=']
TEXT = st.sampled_from([*MARKS, b"\r\n", b"abc" * 30])
DATA = st.one_of(st.binary(max_size=80), st.lists(TEXT, max_size=30).map(b"".join))


@pytest.mark.parametrize("name", PRIMITIVES)
@PATIENT
@given(data=DATA, first=st.integers(0, 100), second=st.integers(0, 100))
def test_both_forms_agree(name: str, data: bytes, first: int, second: int) -> None:
    start, end = sorted((min(first, len(data)), min(second, len(data))))
    assert getattr(scan, name + "_loop")(data, start, end) == getattr(SEARCHES, name)(data, start, end)
    assert getattr(SEARCHES, name + "_loop")(data, start, end) == getattr(SEARCHES, name)(data, start, end)


@pytest.mark.parametrize("name", PRIMITIVES)
def test_both_forms_agree_on_every_byte(name: str) -> None:
    for code in range(256):
        data = b"A" + bytes((code,)) + b"A"
        for start in range(4):
            for end in range(start, 4):
                found = getattr(scan, name + "_loop")(data, start, end)
                assert found == getattr(SEARCHES, name)(data, start, end), (code, start, end)


@PATIENT
@given(st.integers(0, 1 << 80), st.booleans(), st.integers(0, 20))
def test_chunk_sizes(size: int, capitals: bool, zeros: int) -> None:
    digits = b"0" * zeros + (b"%X" if capitals else b"%x") % size
    expected = min(size, scan.HUGE)
    assert scan.chunk_size_loop(digits, 0, len(digits)) == expected
    assert SEARCHES.chunk_size(digits, 0, len(digits)) == expected


def test_a_chunk_size_of_a_million_digits_is_huge() -> None:
    digits = b"f" * 1_000_000
    assert scan.chunk_size_loop(digits, 0, len(digits)) == scan.HUGE


@pytest.mark.parametrize("digits", [b"", b"g", b"0x1", b"+1", b"-1", b"1_0", b" 1", b"1 ", b"1\0", b"\xb2"])
def test_what_is_no_chunk_size(digits: bytes) -> None:
    assert scan.chunk_size_loop(digits, 0, len(digits)) == -1
    assert SEARCHES.chunk_size(digits, 0, len(digits)) == -1


def test_the_tables_are_the_sets_of_the_rfcs() -> None:
    def members(loop: str) -> set[int]:
        return {code for code in range(256) if getattr(scan, loop)(bytes((code,)), 0, 1) == 1}

    tokens = {*b"!#$%&'*+-.^_`|~", *range(0x30, 0x3A), *range(0x41, 0x5B), *range(0x61, 0x7B)}
    assert members("token_loop") == tokens
    assert members("value_loop") == {9, *range(0x20, 0x7F), *range(0x80, 0x100)}
    pchar = {*b"-._~!$&'()*+,;=:@%", *range(0x30, 0x3A), *range(0x41, 0x5B), *range(0x61, 0x7B)}
    assert members("path_loop") == pchar | {*b"/[]|"}
    assert members("query_loop") == pchar | {*b"/?[]|{}\\^`"}


def test_well_known_names_have_a_place_each() -> None:
    places = [SEARCHES.place(name) for name in grammar.WELL_KNOWN]
    assert len(set(places)) == len(grammar.WELL_KNOWN)
    assert [SEARCHES.names[place] for place in places] == list(grammar.WELL_KNOWN)
    assert all(name == name.lower() and grammar.is_token(name) and b"_" not in name for name in grammar.WELL_KNOWN)
