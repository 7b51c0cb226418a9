"""What the value of an option may be: each check turns text, or a Python value, into the value that is kept.

A check is called with a string (command line, environment, TOML) or with a Python value (TOML, `Config(...)`). It
returns the value, or raises ValueError with a text that completes the sentence "--option: ...".
"""

import grp
import math
import os
import pwd
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from stoker.config import cpus

Check = Callable[[object], object]

TRUE = ("1", "true", "yes", "on")
FALSE = ("0", "false", "no", "off")
SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
BIND_FORMS = "host:port, [::1]:port, :port, unix:path, unix:@name, fd://N"


def flag(value: object) -> bool:
    """A boolean: true or false, or one of 1/0, true/false, yes/no, on/off as text."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in TRUE + FALSE:
        return value.lower() in TRUE
    raise ValueError(f"{value!r} is neither true nor false (write one of {', '.join(TRUE + FALSE)})")


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number from `least` to `most`."""

    least: int = 0
    most: int | None = None

    def __call__(self, value: object) -> int:
        """Return the number, or raise ValueError."""
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{value!r} is not a whole number")
        if value < self.least or (self.most is not None and value > self.most):
            bounds = f"at least {self.least}" if self.most is None else f"from {self.least} to {self.most}"
            raise ValueError(f"{value} is out of range (it must be {bounds})")
        return value


@dataclass(frozen=True, slots=True)
class Seconds:
    """A time in seconds, whole or with a fraction. `zero` says whether 0 has a meaning."""

    zero: bool = True

    def __call__(self, value: object) -> float:
        """Return the seconds, or raise ValueError."""
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise ValueError(f"{value!r} is not a number of seconds (write 30 or 0.5)")
        if value == 0 and not self.zero:
            raise ValueError("0 is not a time to wait, and this one cannot be switched off (give a long time instead)")
        return float(value)


@dataclass(frozen=True, slots=True)
class Size:
    """A number of bytes; k, m and g stand for 1024, 1024² and 1024³."""

    least: int = 0

    def __call__(self, value: object) -> int:
        """Return the bytes, or raise ValueError."""
        if isinstance(value, str) and (match := re.fullmatch(r"([0-9]{1,18})([kmg]?)", value.lower())):
            value = int(match[1]) * SIZES[match[2]]
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{value!r} is not a size (write bytes, or 64k, 10m, 1g)")
        if value < self.least:
            raise ValueError(f"{value} is too small (it must be at least {self.least} bytes)")
        return value


@dataclass(frozen=True, slots=True)
class Choice:
    """One word of `words`; `others` maps words that other servers use to the one that means the same here."""

    words: tuple[str, ...]
    others: Mapping[str, str] | None = None

    def __call__(self, value: object) -> str:
        """Return the word of this server, or raise ValueError."""
        if isinstance(value, str):
            if value in self.words:
                return value
            if self.others is not None and value in self.others:
                return self.others[value]
        raise ValueError(f"{value!r} is not one of {', '.join(self.words)}")


def text(value: object) -> str:
    """A text that is not empty and holds no NUL."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    if not value or "\0" in value:
        raise ValueError("the value is empty" if not value else "the value holds a NUL")
    return value


def octal(value: object) -> int:
    """File permission bits: an octal number as text (660, 0o660), or an integer from 0 to 0o777."""
    if isinstance(value, str) and re.fullmatch(r"(0o)?[0-7]{1,4}", value):
        value = int(value.removeprefix("0o"), 8)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 0o777:
        shown = repr(value) if isinstance(value, str) else str(value)
        raise ValueError(f"{shown} is not a mode from 000 to 777 (octal; in TOML write '660' or 0o660)")
    return value


def optional(check: Check) -> Check:
    """`check`, and None for "not given"."""

    def checked(value: object) -> object:
        return None if value is None else check(value)

    return checked


def many(check: Check) -> Check:
    """A tuple of values that pass `check`; text is split at commas."""

    def checked(value: object) -> object:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if not isinstance(value, list | tuple):
            raise ValueError(f"{value!r} is not a list")
        return tuple(check(one) for one in value)

    return checked


def bind(value: object) -> str:
    """An address to listen on: its form is checked here, whether it can be bound is seen when it is."""
    address = text(value)
    if address.startswith("@"):
        address = "unix:" + address
    if address.startswith("unix:"):
        if address in ("unix:", "unix:@") or address.startswith("unix://"):
            raise ValueError(f"{address!r} names no socket (write unix:/run/app.sock or unix:@name)")
        return address
    if address.startswith("fd://"):
        if not re.fullmatch(r"fd://[0-9]{1,7}", address):
            raise ValueError(f"{address!r} is not fd://N with a descriptor number N")
        return address
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[^\s:/\[\]@]*):([0-9]{1,5})", address)
    if match is None or int(match[2]) > 65535:
        raise ValueError(f"{address!r} is not an address to listen on (one of {BIND_FORMS})")
    return address


def bindings(value: object) -> object:
    """At least one address, each different."""
    addresses = many(bind)(value)
    assert isinstance(addresses, tuple)
    if not addresses:
        raise ValueError("no address is given")
    for address in addresses:
        if addresses.count(address) > 1 and not address.endswith(":0"):
            raise ValueError(f"{address} is given twice")
    return addresses


def user(value: object) -> str:
    """A user of this machine, by name or number."""
    name = text(value)
    if not (name.isascii() and name.isdecimal()):
        try:
            pwd.getpwnam(name)
        except KeyError:
            raise ValueError(f"there is no user {name!r} on this machine") from None
    return name


def group(value: object) -> str:
    """A group of this machine, by name or number."""
    name = text(value)
    if not (name.isascii() and name.isdecimal()):
        try:
            grp.getgrnam(name)
        except KeyError:
            raise ValueError(f"there is no group {name!r} on this machine") from None
    return name


def root_path(value: object) -> str:
    """A path to mount the application under: "" or "/prefix", without a slash at its end."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    if value and (not value.startswith("/") or value.endswith("/") or not value.isprintable() or "?" in value):
        raise ValueError(f"{value!r} is not a path such as /app (a slash first, none at the end)")
    return value


def directory(value: object) -> str:
    """A directory that exists; its absolute path is kept."""
    path = text(value)
    if not os.path.isdir(path):
        raise ValueError(f"{path!r} is not a directory")
    return os.path.abspath(path)


def workers(value: object) -> int:
    """How many worker processes: a number, or auto for as many as the CPUs that this process may use."""
    return cpus.available() if value == "auto" else Whole(1, 4096)(value)
