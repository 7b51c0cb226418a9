r"""The log and the access log: lines, each written by one write(2).

The standard library's `logging` is not used: it imports `threading`, which a gevent server must not do before it
patches.

No text from outside can forge a line. In the log every character that does not print (control characters, escape
sequences, bidirectional marks, line separators) is written as an escape, and every line of a message but its first
begins with four blanks. In the access log a value is pure ASCII without `"` and `\`, so it cannot leave its quotes
either.

A write that fails never stops the server: it is counted, and the next line that gets through is preceded by the count.
"""

import base64
import binascii
import functools
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence

from stoker.config import Config
from stoker.errors import ConfigError

DEBUG, INFO, WARNING, ERROR, CRITICAL = 10, 20, 30, 40, 50
LEVELS = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR, "critical": CRITICAL}
NAMES = {number: name for name, number in LEVELS.items()}
COLORS = {DEBUG: "\x1b[2m", INFO: "\x1b[32m", WARNING: "\x1b[33m", ERROR: "\x1b[31m", CRITICAL: "\x1b[1;31m"}
PLAIN = "\x1b[0m"
INDENT = "\n    "


class Sink:
    """Where lines go: a descriptor, which may belong to a file that can be opened again after it was rotated."""

    def __init__(self, path: str, standard: int, folder: str | None = None) -> None:
        """`path` "-" is the descriptor `standard`; a relative one begins in `folder`, else in the working directory.

        Raises ConfigError when the file cannot be opened.
        """
        self.path = None if path == "-" else os.path.abspath(os.path.join(folder or "", path))
        self.lost = 0
        self.torn = False
        try:
            self.fd = standard if self.path is None else self._open(self.path)
        except OSError as error:
            raise ConfigError(f"the log file {path!r} cannot be opened: {error.strerror}") from None

    @staticmethod
    def _open(path: str) -> int:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o640)

    def reopen(self) -> None:
        """Open the file by its name again, under the same descriptor. Raises OSError, and keeps the former file."""
        if self.path is not None:
            fresh = self._open(self.path)
            os.dup2(fresh, self.fd, inheritable=False)
            os.close(fresh)

    def close(self) -> None:
        """Write no more; a standard stream stays open."""
        if self.path is not None:
            os.close(self.fd)

    def own(self, uid: int, gid: int) -> None:
        """Give the file to the user that the workers become, so that they can open it again."""
        if self.path is not None:
            os.fchown(self.fd, uid, gid)

    def write(self, line: str) -> None:
        """Write one line, its end included."""
        data = line.encode("utf-8", "backslashreplace")
        if self.lost:
            note = f"{stamp(time.time())} [{os.getpid()}] WARNING {self.lost} lines of this log were lost\n"
            data = b"\n" * self.torn + note.encode("ascii") + data
        wrote = 0
        try:
            while wrote < len(data):
                wrote += os.write(self.fd, data[wrote:])
            self.lost, self.torn = 0, False
        except OSError:
            self.lost += 1
            self.torn = self.torn if wrote == 0 else data[wrote - 1] != 10


class _State:
    """What setup() decided. Until it is called, the log goes to standard error from level info, plainly."""

    def __init__(self) -> None:
        self.sink = Sink("-", 2)
        self.level = INFO
        self.color = False
        self.json = False
        self.access: Sink | None = None


_state = _State()


def setup(config: Config) -> None:
    """Begin to log as the options say. Raises ConfigError when a file cannot be opened or a format cannot be read."""
    standard = 1 if config.json else 2
    sink = Sink(config.error_logfile, standard, config.chdir)
    former = (_state.sink, _state.access)
    _state.sink = sink
    _state.level = LEVELS[config.log_level]
    _state.json = config.json
    _state.color = not config.json and _colored(config.color, sink.fd)
    if config.access_log:
        compile_format(config.access_logformat)
        _state.access = Sink(config.access_logfile, 1, config.chdir)
    else:
        _state.access = None
    for one in former:  # a reload sets the log up again
        if one is not None:
            one.close()


def _colored(when: str, fd: int) -> bool:
    """Whether to colour what goes to this descriptor; NO_COLOR as https://no-color.org has it."""
    return when == "always" or (when == "auto" and not os.environ.get("NO_COLOR") and os.isatty(fd))


def reopen() -> None:
    """Open the log files by their names again: what SIGUSR1 asks for after they were rotated."""
    for sink in (_state.sink, _state.access):
        if sink is not None:
            try:
                sink.reopen()
            except OSError as failure:
                error(
                    f"the log file {sink.path} cannot be opened again, the former one stays in use: {failure.strerror}"
                )


def own(uid: int, gid: int) -> None:
    """Give the log files to the user that the workers become, so that they can open them again."""
    for sink in (_state.sink, _state.access):
        if sink is not None:
            sink.own(uid, gid)


def lost() -> int:
    """How many lines this process could not write since the last one that it could."""
    return _state.sink.lost + (_state.access.lost if _state.access is not None else 0)


_second = -1
_day_and_time = ""


def stamp(now: float) -> str:
    """Local time with milliseconds and the offset from UTC: `2026-01-31 23:59:59.123 +0000`."""
    global _second, _day_and_time
    second = int(now)
    if second != _second:
        _day_and_time = time.strftime("%Y-%m-%d %H:%M:%S.%%03d %z", time.localtime(second))
        _second = second
    return _day_and_time % int((now - second) * 1000)


def printable(text: str) -> str:
    r"""`text` with every character that does not print written as an escape (`\n`, `\x1b`, `\u202e`)."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _log(level: int, message: str) -> None:
    if level < _state.level:
        return
    now = time.time()
    if _state.json:
        fields = {"kind": "log", "time": stamp(now), "pid": os.getpid(), "level": NAMES[level], "message": message}
        _state.sink.write(_json(fields))
        return
    name = NAMES[level].upper()
    if _state.color:
        name = f"{COLORS[level]}{name}{PLAIN}"
    lines = INDENT.join(printable(line) for line in message.split("\n"))
    _state.sink.write(f"{stamp(now)} [{os.getpid()}] {name} {lines}\n")


def _json(fields: Mapping[str, object]) -> str:
    """One line of JSON, ASCII alone: the escapes of JSON cover all that does not print, but for DEL."""
    return json.dumps(fields, separators=(",", ":")).replace("\x7f", "\\u007f") + "\n"


def debug(message: str) -> None:
    """Log what only somebody who looks for a fault wants to know."""
    _log(DEBUG, message)


def info(message: str) -> None:
    """Log what happened as it should."""
    _log(INFO, message)


def warning(message: str) -> None:
    """Log what somebody should look at, while everything is still served."""
    _log(WARNING, message)


def error(message: str) -> None:
    """Log that something failed."""
    _log(ERROR, message)


def critical(message: str) -> None:
    """Log what ends the server."""
    _log(CRITICAL, message)


def exception(message: str) -> None:
    """Log that something failed, with the traceback of the exception that is being handled."""
    _log(ERROR, f"{message}\n{traceback.format_exc().rstrip()}" if sys.exc_info()[0] is not None else message)


# The access log ---------------------------------------------------------------------------------------------------


class AccessEntry:
    """What is known of a request when its response has been handed to the kernel.

    `peer` is as accept(2) gave it. `target` and `query` are bytes as sent. `started` is in seconds since the epoch;
    `waiting` (for the request's bytes and for a free place), `application` and `writing` are in seconds.
    """

    __slots__ = (
        "application", "environ", "method", "minor", "peer", "query", "request_fields", "response_headers", "sent",
        "started", "status", "target", "waiting", "writing",
    )  # fmt: skip

    def __init__(
        self,
        *,
        peer: object,
        method: str,
        target: bytes,
        query: bytes,
        minor: int,
        status: int,
        sent: int,
        started: float,
        waiting: float,
        application: float,
        writing: float,
        request_fields: Sequence[tuple[bytes, bytes]] = (),
        response_headers: Sequence[tuple[str, str]] = (),
        environ: Mapping[str, object] | None = None,
    ) -> None:
        self.peer = peer
        self.method = method
        self.target = target
        self.query = query
        self.minor = minor
        self.status = status
        self.sent = sent
        self.request_fields = request_fields
        self.response_headers = response_headers
        self.environ: Mapping[str, object] = {} if environ is None else environ
        self.started = started
        self.waiting = waiting
        self.application = application
        self.writing = writing


class AccessLog:
    """Writes a line for each request. Made once per worker, after setup()."""

    def __init__(self, config: Config) -> None:
        if _state.access is None:
            _state.access = Sink(config.access_logfile, 1, config.chdir)
        self.sink = _state.access
        as_json = config.access_log_json or (config.json and config.access_logfile == "-")
        self.line = _json_line if as_json else compile_format(config.access_logformat)

    @classmethod
    def from_config(cls, config: Config) -> "AccessLog | None":
        """The access log that the options ask for, or None."""
        return cls(config) if config.access_log else None

    def record(self, entry: AccessEntry) -> None:
        """Write the line of one request."""
        self.sink.write(self.line(entry))


Atom = Callable[[AccessEntry], str]

OUTSIDE = re.compile(r"[^ !#-\[\]-~]")


def _safe(value: object) -> str:
    """A value from outside as ASCII that can leave neither its line nor its quotes; "-" for an empty one."""
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return OUTSIDE.sub(_escape, text) if text else "-"


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _peer(entry: AccessEntry) -> str:
    return _safe(entry.peer[0]) if isinstance(entry.peer, tuple) and entry.peer else "-"


def _field(entry: AccessEntry, name: bytes) -> str:
    return _safe(b",".join(value for key, value in entry.request_fields if key == name))


def _header(entry: AccessEntry, name: str) -> str:
    return _safe(",".join(value for key, value in entry.response_headers if key.lower() == name))


def _user(entry: AccessEntry) -> str:
    """The user's name of HTTP Basic authentication (RFC 7617), without a blank in it."""
    scheme, _, rest = dict(entry.request_fields).get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"basic":
        return "-"
    try:
        name = base64.b64decode(rest.strip(), validate=True).partition(b":")[0]
    except binascii.Error:
        return "-"
    return _safe(name).replace(" ", "\\x20")


def _clock(entry: AccessEntry) -> str:
    return _clock_of(int(entry.started))


@functools.lru_cache(maxsize=8)
def _clock_of(second: int) -> str:
    return time.strftime("[%d/%b/%Y:%H:%M:%S %z]", time.localtime(second))


def _path(entry: AccessEntry) -> str:
    return _safe(entry.target.partition(b"?")[0])


def _total(entry: AccessEntry) -> float:
    return entry.waiting + entry.application + entry.writing


# Times are not rounded but cut, so that %(T)s, %(M)s and %(D)s agree.
ATOMS: dict[str, Atom] = {
    "h": _peer,
    "l": lambda entry: "-",
    "u": _user,
    "t": _clock,
    "r": lambda entry: f"{_safe(entry.method)} {_safe(entry.target)} HTTP/1.{entry.minor}",
    "m": lambda entry: _safe(entry.method),
    "U": _path,
    "q": lambda entry: _safe(entry.query) if entry.query else "",
    "H": lambda entry: f"HTTP/1.{entry.minor}",
    "s": lambda entry: str(entry.status),
    "B": lambda entry: str(entry.sent),
    "b": lambda entry: str(entry.sent) if entry.sent else "-",
    "f": lambda entry: _field(entry, b"referer"),
    "a": lambda entry: _field(entry, b"user-agent"),
    "T": lambda entry: str(int(_total(entry))),
    "M": lambda entry: str(int(_total(entry) * 1e3)),
    "D": lambda entry: str(int(_total(entry) * 1e6)),
    "L": lambda entry: f"{_total(entry):.6f}",
    "p": lambda entry: f"<{os.getpid()}>",
    "wait": lambda entry: f"{entry.waiting * 1e3:.3f}",
    "app": lambda entry: f"{entry.application * 1e3:.3f}",
    "write": lambda entry: f"{entry.writing * 1e3:.3f}",
}


def _named(name: str, kind: str) -> Atom:
    """The atom {name}i, {name}o or {name}e: a request field, a response field, a variable of the environment."""
    if kind == "i":
        key = name.lower().encode("utf-8")
        return lambda entry: _field(entry, key)
    if kind == "o":
        return lambda entry: _header(entry, name.lower())
    return lambda entry: _safe(entry.environ.get(name, ""))


def compile_format(form: str) -> Atom:
    """The function that makes the line of a request by this format. Raises ConfigError for an unknown atom."""
    template: list[str] = []
    atoms: list[Atom] = []
    end = 0
    for match in re.finditer(r"%%|%\((?:\{([^{}]+)\}([ioe])|(\w+))\)s|%", form):
        template.append(form[end : match.start()].replace("%", "%%"))
        end = match.end()
        if match[0] == "%%":
            template.append("%%")
            continue
        if match[1]:
            atoms.append(_named(match[1], match[2]))
        elif match[3] in ATOMS:
            atoms.append(ATOMS[match[3]])
        else:
            here = form[match.start() : match.start() + 12]
            known = " ".join(f"%({name})s" for name in ATOMS)
            raise ConfigError(
                f"access_logformat: {here!r} is no atom (there are {known} %({{x}}i)s %({{x}}o)s %({{x}}e)s %%)"
            )
        template.append("%s")
    template.append(form[end:])
    line = printable("".join(template)) + "\n"
    return lambda entry: line % tuple([atom(entry) for atom in atoms])


def _json_line(entry: AccessEntry) -> str:
    """One request as a JSON object; the times in milliseconds. Bytes are shown as latin-1, escaped by JSON."""
    peer = entry.peer
    fields = {
        "kind": "request",
        "time": stamp(entry.started),
        "pid": os.getpid(),
        "peer": str(peer[0]) if isinstance(peer, tuple) and peer else None,
        "method": entry.method,
        "target": entry.target.decode("latin-1"),
        "version": f"1.{entry.minor}",
        "status": entry.status,
        "sent": entry.sent,
        "referer": dict(entry.request_fields).get(b"referer", b"").decode("latin-1") or None,
        "user_agent": dict(entry.request_fields).get(b"user-agent", b"").decode("latin-1") or None,
        "wait": round(entry.waiting * 1e3, 3),
        "app": round(entry.application * 1e3, 3),
        "write": round(entry.writing * 1e3, 3),
    }
    return _json(fields)
