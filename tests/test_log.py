"""The log and the access log: what stands in a line, and that nobody outside can forge one."""

from __future__ import annotations

import base64
import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker import log
from stoker.config import Config
from stoker.config.table import COMBINED
from stoker.errors import ConfigError

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [+-]\d{4} \[\d+\] (DEBUG|INFO|WARNING|ERROR|CRITICAL) ")
EVIL = (
    "a\r\n2026-01-01 00:00:00.000 +0000 [1] INFO forged\x1b[2J\x00\x7f\x85\u2028\u2029\u202e\u2066\u200b\ufeff\ud800é漢"
)


@pytest.fixture(autouse=True)
def fresh_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(log, "_state", log._State())
    monkeypatch.delenv("NO_COLOR", raising=False)
    yield
    for sink in (log._state.sink, log._state.access):
        if sink is not None and sink.fd > 2:
            os.close(sink.fd)


def entry(**more: Any) -> log.AccessEntry:
    """A request, complete; `more` replaces parts of it."""
    parts: dict[str, Any] = {
        "peer": ("192.0.2.7", 40000),
        "method": "GET",
        "target": b"/a%20b?c=d",
        "query": b"c=d",
        "minor": 1,
        "status": 200,
        "sent": 13,
        "started": 1_700_000_000.25,
        "waiting": 0.0015,
        "application": 1.25,
        "writing": 0.0005,
        "request_fields": [
            (b"host", b"example.org"),
            (b"referer", b"http://r/"),
            (b"user-agent", b"curl/8"),
            (b"x", b"1"),
            (b"x", b"2"),
        ],
        "response_headers": [("Content-Type", "text/plain"), ("X-Y", "é")],
        "environ": {"REMOTE_USER": "bob", "n": 3},
    }
    return log.AccessEntry(**parts | more)


def line(form: str, **more: Any) -> str:
    text = log.compile_format(form)(entry(**more))
    assert text.endswith("\n")
    return text[:-1]


# The log.


def logged(tmp_path: Path, **options: Any) -> Path:
    path = tmp_path / "log"
    log.setup(Config(error_logfile=str(path), **options))
    return path


def test_a_line_has_time_pid_level_and_message(tmp_path: Path) -> None:
    path = logged(tmp_path, log_level="debug")
    for level in ("debug", "info", "warning", "error", "critical"):
        getattr(log, level)(f"this is {level}")
    lines = path.read_text().splitlines()
    assert len(lines) == 5
    for text, level in zip(lines, ("debug", "info", "warning", "error", "critical"), strict=True):
        assert LINE.match(text)
        assert text.endswith(f" [{os.getpid()}] {level.upper()} this is {level}")


def test_the_time_is_now_and_local(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TZ", "UTC-5:30")
    time.tzset()
    try:
        assert log.stamp(0.9996) == "1970-01-01 05:30:00.999 +0530"
        assert log.stamp(1.5) == "1970-01-01 05:30:01.500 +0530"
        assert line("%(t)s", started=0.0) == "[01/Jan/1970:05:30:00 +0530]"
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_what_is_below_the_level_is_not_logged(tmp_path: Path) -> None:
    path = logged(tmp_path, log_level="error")
    log.warning("no")
    log.error("yes")
    assert path.read_text().count("\n") == 1


def test_a_message_cannot_forge_a_line(tmp_path: Path) -> None:
    path = logged(tmp_path)
    log.info(EVIL)
    lines = path.read_text("utf-8").split("\n")
    assert len(lines) == 3
    assert lines[2] == ""
    assert LINE.match(lines[0])
    assert lines[0].endswith("INFO a\\r")
    assert lines[1] == (
        "    2026-01-01 00:00:00.000 +0000 [1] INFO forged"
        "\\x1b[2J\\x00\\x7f\\x85\\u2028\\u2029\\u202e\\u2066\\u200b\\ufeff\\ud800é漢"
    )


@given(st.text(alphabet=st.characters(), max_size=200))
def test_no_message_whatever_begins_a_line_or_does_not_print(message: str) -> None:
    reading, writing = os.pipe()
    log._state.sink = log.Sink("-", writing)
    log.info(message)
    os.close(writing)
    with open(reading, encoding="utf-8", newline="") as pipe:
        text = pipe.read()
    log._state.sink = log.Sink("-", 2)
    assert text.endswith("\n")
    first, *rest = text[:-1].split("\n")
    assert LINE.match(first)
    assert all(one.startswith("    ") for one in rest)
    assert all(one.isprintable() for one in (first, *rest))


def test_a_traceback_is_indented(tmp_path: Path) -> None:
    path = logged(tmp_path)
    try:
        raise ValueError("bad\nINFO forged")
    except ValueError:
        log.exception("it failed")
    first, *rest = path.read_text().splitlines()
    assert first.endswith("ERROR it failed")
    assert rest[0] == "    Traceback (most recent call last):"
    assert rest[-2:] == ["    ValueError: bad", "    INFO forged"]
    log.exception("without an exception")
    assert path.read_text().splitlines()[-1].endswith("ERROR without an exception")


def test_one_write_per_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = logged(tmp_path)
    calls: list[bytes] = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: (calls.append(data), write(fd, data))[1])
    log.info("a\nb\nc")
    assert calls == [path.read_bytes()]


def test_lines_of_many_processes_do_not_mix(tmp_path: Path) -> None:
    path = logged(tmp_path)
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            for _ in range(500):
                log.info(f"{number}" * 200)
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    lines = path.read_text().splitlines()
    assert len(lines) == 2000
    assert all(re.fullmatch(r"(\d)\1{199}", LINE.sub("", text)) for text in lines)


@pytest.mark.parametrize(
    ("color", "no_color", "terminal", "colored"),
    [
        ("auto", None, False, False),
        ("auto", None, True, True),
        ("auto", "1", True, False),
        ("auto", "", True, True),
        ("always", "1", False, True),
        ("never", None, True, False),
    ],
)
def test_color(
    color: str, no_color: str | None, terminal: bool, colored: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "isatty", lambda fd: terminal)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    path = logged(tmp_path, color=color)
    log.warning("x")
    assert ("\x1b[33mWARNING\x1b[0m" in path.read_text()) == colored


def test_json(tmp_path: Path) -> None:
    path = logged(tmp_path, json=True)
    log.warning(EVIL)
    text = path.read_text("ascii")
    assert text.count("\n") == 1
    assert text[:-1].isprintable()
    fields = json.loads(text)
    assert (fields["kind"], fields["level"], fields["pid"], fields["message"]) == ("log", "warning", os.getpid(), EVIL)
    assert LINE.match(f"{fields['time']} [1] INFO ")


def test_json_goes_to_standard_output_and_the_rest_to_standard_error() -> None:
    code = """
        from stoker import log
        from stoker.config import Config
        log.info("before setup")
        log.setup(Config(json={json}, access_log=True))
        log.info("hello")
    """
    for as_json in (False, True):
        run = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code.format(json=as_json))],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "before setup" in run.stderr
        assert ("hello" in run.stdout, "hello" in run.stderr) == (as_json, not as_json)


# Files.


def test_reopen_after_rotation(tmp_path: Path) -> None:
    access = tmp_path / "access"
    path = logged(tmp_path, access_logfile=str(access))
    requests = log.AccessLog.from_config(Config(access_logfile=str(access)))
    assert requests is not None
    log.info("one")
    requests.record(entry())
    path.rename(tmp_path / "log.1")
    access.rename(tmp_path / "access.1")
    log.info("two")
    log.reopen()
    log.info("three")
    requests.record(entry())
    assert [text[-3:] for text in (tmp_path / "log.1").read_text().splitlines()] == ["one", "two"]
    assert path.read_text().endswith("three\n")
    assert (tmp_path / "access.1").read_text().count("\n") == access.read_text().count("\n") == 1
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_file_that_cannot_be_opened_again_stays(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = logged(folder)
    folder.rename(tmp_path / "moved")
    log.reopen()
    assert (
        "cannot be opened again, the former one stays in use: No such file"
        in (tmp_path / "moved" / path.name).read_text()
    )


def test_the_descriptors_are_not_inherited(tmp_path: Path) -> None:
    logged(tmp_path)
    assert not os.get_inheritable(log._state.sink.fd)
    log.reopen()
    assert not os.get_inheritable(log._state.sink.fd)


def test_a_relative_file_begins_in_chdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    log.setup(Config(chdir=str(tmp_path), error_logfile="log", access_logfile="access"))
    assert {path.name for path in tmp_path.iterdir()} == {"log", "access"}


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the log file '/no/folder/log' cannot be opened: No such file"):
        log.setup(Config(error_logfile="/no/folder/log"))
    with pytest.raises(ConfigError, match="cannot be opened: Is a directory"):
        log.setup(Config(access_logfile=str(tmp_path)))


def test_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = logged(tmp_path)
    calls: list[tuple[int, ...]] = []
    monkeypatch.setattr(os, "fchown", lambda *values: calls.append(values))
    log.own(33, 34)
    assert calls == [(log._state.sink.fd, 33, 34)]
    assert path.exists()


def test_a_full_disk_is_counted_and_told(tmp_path: Path) -> None:
    path = logged(tmp_path)
    full = os.open("/dev/full", os.O_WRONLY)
    good = log._state.sink.fd
    log._state.sink.fd = full
    log.info("lost")
    log.info("lost too")
    os.close(full)
    assert log.lost() == 2
    log._state.sink.fd = good
    log.info("again")
    first, second = path.read_text().splitlines()
    assert LINE.match(first)
    assert first.endswith("WARNING 2 lines of this log were lost")
    assert second.endswith("INFO again")
    assert log.lost() == 0


def test_a_closed_pipe_ends_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    log._state.sink = log.Sink("-", writing)
    log.info("nobody reads this")
    assert log.lost() == 1
    os.close(writing)
    log.info("and this has no descriptor")
    assert log.lost() == 2
    log._state.sink = log.Sink("-", 2)


def test_a_torn_line_is_ended_before_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = logged(tmp_path)
    write = os.write
    answers = iter([5, OSError(28, "full")])

    def torn(fd: int, data: bytes) -> int:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return write(fd, data[:answer])

    monkeypatch.setattr(os, "write", torn)
    log.info("cut")
    monkeypatch.setattr(os, "write", write)
    log.info("whole")
    lines = path.read_text().splitlines()
    assert len(lines) == 3
    assert len(lines[0]) == 5
    assert lines[1].endswith("1 lines of this log were lost")
    assert lines[2].endswith("whole")


def test_a_write_in_pieces_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = logged(tmp_path)
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    log.info("in pieces")
    assert path.read_text().endswith("INFO in pieces\n")
    assert log.lost() == 0


# The access log.


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("%(h)s", "192.0.2.7"),
        ("%(l)s", "-"),
        ("%(u)s", "-"),
        ("%(r)s", "GET /a%20b?c=d HTTP/1.1"),
        ("%(m)s", "GET"),
        ("%(U)s", "/a%20b"),
        ("%(q)s", "c=d"),
        ("%(H)s", "HTTP/1.1"),
        ("%(s)s", "200"),
        ("%(B)s", "13"),
        ("%(b)s", "13"),
        ("%(f)s", "http://r/"),
        ("%(a)s", "curl/8"),
        ("%(T)s", "1"),
        ("%(M)s", "1252"),
        ("%(D)s", "1252000"),
        ("%(L)s", "1.252000"),
        ("%(wait)s %(app)s %(write)s", "1.500 1250.000 0.500"),
        ("%({Host}i)s %({x}i)s %({none}i)s", "example.org 1,2 -"),
        ("%({content-type}o)s %({X-Y}o)s %({none}o)s", "text/plain \\xe9 -"),
        ("%({REMOTE_USER}e)s %({n}e)s %({none}e)s", "bob 3 -"),
        ("100%% [%(s)s] \\n", "100% [200] \\n"),
        ("a\nb\x1b", "a\\nb\\x1b"),
        ("", ""),
    ],
)
def test_atoms(form: str, text: str) -> None:
    assert line(form) == text


def test_the_atom_of_the_process() -> None:
    assert line("%(p)s") == f"<{os.getpid()}>"


def test_atoms_of_another_request() -> None:
    other: dict[str, Any] = {
        "peer": "",
        "sent": 0,
        "query": b"",
        "target": b"*",
        "minor": 0,
        "request_fields": [],
        "method": "OPTIONS",
    }
    assert line("%(h)s %(b)s %(B)s [%(q)s] %(U)s %(r)s %(f)s", **other) == "- - 0 [] * OPTIONS * HTTP/1.0 -"
    assert line("%(h)s", peer=("2001:db8::1", 5, 0, 0)) == "2001:db8::1"


def test_every_atom_of_gunicorn_is_there() -> None:
    from gunicorn.glogging import Logger

    names = set(re.findall(r"^\s+'(\w+)':", inspect.getsource(Logger.atoms), re.MULTILINE))
    assert {"h", "r", "L", "p"} <= names
    assert names <= set(log.ATOMS)


def test_the_default_is_the_combined_format() -> None:
    assert re.fullmatch(
        r"192\.0\.2\.7 - - \[\d\d/\w{3}/2023:\d\d:\d\d:\d\d [+-]\d{4}\] "
        r'"GET /a%20b\?c=d HTTP/1\.1" 200 13 "http://r/" "curl/8"',
        line(COMBINED),
    )


@pytest.mark.parametrize(
    ("value", "user"),
    [
        (b"Basic " + base64.b64encode(b"bob:secret"), "bob"),
        (b"basic " + base64.b64encode(b'bo b\n"x:y'), "bo\\x20b\\x0a\\x22x"),
        (b"Basic " + base64.b64encode("é:x".encode()), "\\xc3\\xa9"),
        (b"Basic " + base64.b64encode(b":secret"), "-"),
        (b"Basic !!!", "-"),
        (b"Bearer abc", "-"),
        (b"", "-"),
    ],
)
def test_the_user(value: bytes, user: str) -> None:
    assert line("%(u)s", request_fields=[(b"authorization", value)]) == user


@pytest.mark.parametrize("form", ["%(zz)s", "%(h)d", "%h", "50%", "%({x}q)s", "%({}i)s", "%()s"])
def test_unknown_atoms(form: str) -> None:
    with pytest.raises(ConfigError, match=r"access_logformat: .* is no atom \(there are %\(h\)s"):
        log.compile_format(form)
    with pytest.raises(ConfigError):
        log.setup(Config(access_log=True, access_logformat=form))


@given(st.text(max_size=50), st.binary(max_size=50))
def test_nothing_from_outside_leaves_its_line_or_its_quotes(text: str, data: bytes) -> None:
    forms = ["h", "u", "r", "m", "U", "q", "f", "a", "{x}i", "{x}o", "{x}e"]
    record = log.compile_format(" ".join(f'"%({form})s"' for form in forms))
    fields = [
        (b"referer", data),
        (b"user-agent", data),
        (b"x", data),
        (b"authorization", b"Basic " + base64.b64encode(data)),
    ]
    evil = entry(
        peer=(text, 1),
        method=text,
        target=data,
        query=data,
        request_fields=fields,
        response_headers=[("X", text)],
        environ={"x": text},
    )
    written = record(evil)
    assert written.isascii()
    assert written[:-1].isprintable()
    assert written.count('"') == 2 * len(forms)
    assert not re.search(r"\\(?!x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})", written)
    decoded = json.loads(log._json_line(evil))
    assert decoded["target"] == data.decode("latin-1")
    assert log._json_line(evil)[:-1].isprintable()


def test_the_json_form(tmp_path: Path) -> None:
    path = tmp_path / "access"
    config = Config(access_logfile=str(path), access_log_json=True)
    log.setup(config)
    requests = log.AccessLog.from_config(config)
    assert requests is not None
    requests.record(entry())
    requests.record(entry(peer="", request_fields=[]))
    first, second = (json.loads(text) for text in path.read_text("ascii").splitlines())
    assert first == {
        "kind": "request",
        "time": log.stamp(1_700_000_000.25),
        "pid": os.getpid(),
        "peer": "192.0.2.7",
        "method": "GET",
        "target": "/a%20b?c=d",
        "version": "1.1",
        "status": 200,
        "sent": 13,
        "referer": "http://r/",
        "user_agent": "curl/8",
        "wait": 1.5,
        "app": 1250.0,
        "write": 0.5,
    }
    assert (second["peer"], second["referer"], second["user_agent"]) == (None, None, None)


def test_off_there_is_no_access_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = Config()
    log.setup(config)
    assert log.AccessLog.from_config(config) is None
    assert log._state.access is None
