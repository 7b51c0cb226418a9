"""Where the values of options come from, and which one counts.

In order: the command line, the environment (`STOKER_<OPTION>`), the file (`stoker.toml`, or `[tool.stoker]` in
`pyproject.toml`), the default. Each value keeps its origin, so that an error, a warning and `--print-config` can name
it.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from stoker.config import others, values
from stoker.config.table import DEFAULTS, FOLLOWS, OPTIONS, Config, ineffective
from stoker.config.values import Check, Whole
from stoker.errors import ConfigError

# What the environment may hold beside options: STOKER_INTERPRETED is read by stoker.build.
OTHER_VARIABLES = ("STOKER_CONFIG", "STOKER_INTERPRETED")

# What Kubernetes sets in every container for a service called stoker, or stoker-something.
KUBERNETES = re.compile(
    r"STOKER_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
KUBERNETES_PORT = re.compile(r"(tcp|udp|sctp)://")

# uvicorn's ways to say where to listen. They are no options of their own: `bind` is made of them.
PARTS: dict[str, tuple[Check, str, str]] = {
    "host": (values.text, "HOST", "listen on this address (with --port); the same as --bind HOST:PORT"),
    "port": (Whole(0, 65535), "PORT", "listen on this port (with --host); 0: one that is free"),
    "uds": (values.text, "PATH", "listen on this unix socket; the same as --bind unix:PATH"),
    "fd": (Whole(0, 1 << 20), "N", "listen on this inherited descriptor; the same as --bind fd://N"),
}


class Level(IntEnum):
    """The sources, the strongest first; PLATFORM is what hosts set for every server."""

    COMMAND_LINE = 0
    ENVIRONMENT = 1
    FILE = 2
    PLATFORM = 3


@dataclass(frozen=True, slots=True)
class Given:
    """A value that somebody gave: as it was written, who gave it, and how to name that ("--bind", "STOKER_BIND")."""

    value: object
    level: Level
    origin: str


@dataclass(frozen=True, slots=True)
class Settings:
    """The outcome: the options, where each comes from ("default" for most), and what deserves a warning."""

    config: Config
    origins: Mapping[str, str]
    warnings: tuple[str, ...]


def suggest(word: str, known: Iterable[str], show: Callable[[str], str] = str) -> str:
    """Ask "did you mean ...?" with the known word that is nearest, if one is near: to be put at the end of an error."""
    near = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {show(near[0])}?" if near else ""


def known_names() -> list[str]:
    """Every name that an option can be given by, in the environment and in the file."""
    return [name for name, option in OPTIONS.items() if not option.command_line_only] + list(PARTS)


def from_environment(environ: Mapping[str, str]) -> tuple[dict[str, Given], list[str]]:
    """The options among the environment's variables, and a warning for each STOKER_ variable that is none."""
    given: dict[str, Given] = {}
    warnings = []
    names = known_names()
    for variable, value in sorted(environ.items()):
        if not variable.startswith("STOKER_") or variable in OTHER_VARIABLES:
            continue
        name = variable.removeprefix("STOKER_").lower()
        if KUBERNETES.fullmatch(variable) and (name != "port" or KUBERNETES_PORT.match(value)):
            continue
        if name in names and variable == variable.upper():
            given[name] = Given(value, Level.ENVIRONMENT, variable)
        else:
            hint = suggest(name, names, lambda known: "STOKER_" + known.upper())
            warnings.append(f"{variable} in the environment is no option of Stoker{hint}")
    for variable in ("GUNICORN_CMD_ARGS", *(name for name in environ if name.startswith("UVICORN_"))):
        if variable in environ:
            warnings.append(f"{variable} in the environment is not read (stoker reads STOKER_<OPTION>)")
    return given, warnings


def from_platform(environ: Mapping[str, str]) -> dict[str, Given]:
    """The default for workers that hosting platforms set: $WEB_CONCURRENCY."""
    count = environ.get("WEB_CONCURRENCY")
    return {"workers": Given(count, Level.PLATFORM, "WEB_CONCURRENCY")} if count else {}


def find_file(folder: str) -> tuple[str, dict[str, object]] | None:
    """The file with options in `folder`, and what it holds: stoker.toml, or pyproject.toml with [tool.stoker]."""
    own, shared = os.path.join(folder, "stoker.toml"), os.path.join(folder, "pyproject.toml")
    table = _section(read_toml(shared), shared) if os.path.isfile(shared) else None
    if not os.path.isfile(own):
        return None if table is None else (f"{shared} [tool.stoker]", table)
    if table is not None:
        raise ConfigError(
            f"both {own} and [tool.stoker] in {shared} hold options: keep one of them, or name one by --config"
        )
    return own, read_toml(own)


def open_file(path: str) -> tuple[str, dict[str, object]]:
    """The file that --config names, and what it holds. Raises ConfigError for a file of another server, too."""
    if os.path.basename(path) == "pyproject.toml":
        table = _section(read_toml(path), path)
        if table is None:
            raise ConfigError(f"{path} has no table [tool.stoker]")
        return f"{path} [tool.stoker]", table
    if not path.endswith(".toml"):
        raise ConfigError(f"{path}: the configuration file is TOML and its name ends in .toml")
    return path, read_toml(path)


def read_toml(path: str) -> dict[str, object]:
    """A TOML file as a dictionary. Raises ConfigError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def _section(whole: dict[str, object], path: str) -> dict[str, object] | None:
    tool = whole.get("tool")
    table = tool.get("stoker") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise ConfigError(f"{path}: [tool.stoker] is not a table")
    return table


def from_file(path: str, table: Mapping[str, object]) -> dict[str, Given]:
    """The options of a file. Raises ConfigError for a key that is none."""
    given: dict[str, Given] = {}
    names = known_names()
    for key, value in table.items():
        name = key.replace("-", "_")
        if name in OPTIONS and OPTIONS[name].command_line_only:
            raise ConfigError(f"{path}: {key} makes sense on the command line alone (--{name.replace('_', '-')})")
        if name not in names:
            advice = others.advice_for_setting(name)
            raise ConfigError(f"{path}: {key!r} is no option of Stoker{advice or suggest(name, names)}")
        if name in given:
            raise ConfigError(f"{path}: {key} is given twice, with a hyphen and with an underscore")
        given[name] = Given(value, Level.FILE, f"{path}: {key}")
    return given


def resolve(command_line: Mapping[str, Given], environ: Mapping[str, str], path: str | None = None) -> Settings:
    """The options of `stoker serve`: from the command line, the environment, and the file `path` or the one found.

    A file is looked for in the directory of --chdir, else in the working directory. Raises ConfigError.
    """
    variables, warnings = from_environment(environ)
    path = path or environ.get("STOKER_CONFIG")
    if path:
        found: tuple[str, dict[str, object]] | None = open_file(path)
    else:
        chdir = command_line.get("chdir") or variables.get("chdir")
        folder = str(check(OPTIONS["chdir"].check, chdir)) if chdir else ""
        found = find_file(folder)
        if found is None and os.path.isfile(os.path.join(folder, "gunicorn.conf.py")):
            warnings.append(
                "gunicorn.conf.py is not read; stoker -c gunicorn.conf.py prints it as TOML, for stoker.toml"
            )
    file = from_file(*found) if found else {}
    settings = merge((command_line, variables, file, from_platform(environ)), warnings)
    port = environ.get("PORT", "")
    if settings.origins["bind"] == "default" and port.isdecimal():
        warning = f"PORT={port} in the environment is not read; to listen there: --bind 0.0.0.0:{port}"
        settings = Settings(settings.config, settings.origins, (*settings.warnings, warning))
    return settings


def merge(sources: Iterable[Mapping[str, Given]], warnings: Iterable[str] = ()) -> Settings:
    """Decide between the sources, the strongest first.

    Raises ConfigError for a wrong value, and for an option on the command line that has no effect here; where such an
    option comes from the environment or a file, it is left out and a warning says so.
    """
    chosen: dict[str, Given] = {}
    parts: dict[str, Given] = {}
    for source in sources:
        served = "app" in chosen or "tcp" in chosen
        for name, given in source.items():
            if name in PARTS:
                parts.setdefault(name, given)
            elif not (served and name in ("app", "tcp")):
                chosen.setdefault(name, given)
    _bind(chosen, parts)
    checked: dict[str, Any] = {name: check(OPTIONS[name].check, given) for name, given in chosen.items()}
    said = list(warnings)
    for name, reason in ineffective(DEFAULTS | checked, checked).items():
        given = chosen.pop(name)
        if given.level == Level.COMMAND_LINE:
            raise ConfigError(f"{given.origin} {reason}")
        said.append(f"{given.origin} {reason}: it is ignored")
        del checked[name]
    if "engine" in chosen:
        checked["engine"] = chosen["engine"].value  # as it was written: gthread means more than an engine
    config = Config(**checked)
    origins = {name: chosen[name].origin if name in chosen else "default" for name in OPTIONS}
    for name, cause in FOLLOWS.items():
        if origins[name] == "default" and getattr(config, name) not in (DEFAULTS[name], False):
            origins[name] = f"follows from {origins[cause]}"
    return Settings(config, origins, tuple(said))


def check(rule: Check, given: Given) -> object:
    """A value, checked. Raises ConfigError that names its origin."""
    try:
        return rule(given.value)
    except ValueError as wrong:
        raise ConfigError(f"{given.origin}: {wrong}") from None


def _bind(chosen: dict[str, Given], parts: dict[str, Given]) -> None:
    """Make `bind` of the strongest source that says where to listen; host and port may come from different ones."""
    found = [*parts.values(), *([chosen["bind"]] if "bind" in chosen else [])]
    if not parts:
        return
    level = min(given.level for given in found)
    binds: list[object] = []
    used = []
    if "bind" in chosen and chosen["bind"].level == level:
        addresses = check(OPTIONS["bind"].check, chosen["bind"])
        assert isinstance(addresses, tuple)
        binds += addresses
        used.append(chosen["bind"])
    for name, prefix in (("uds", "unix:"), ("fd", "fd://")):
        if name in parts and parts[name].level == level:
            binds.append(f"{prefix}{check(PARTS[name][0], parts[name])}")
            used.append(parts[name])
    pair = [parts[name] for name in ("host", "port") if name in parts]
    if any(given.level == level for given in pair):
        host = str(check(values.text, parts["host"])).strip("[]") if "host" in parts else "127.0.0.1"
        port = check(PARTS["port"][0], parts["port"]) if "port" in parts else 8000
        binds.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        used += pair
    chosen["bind"] = Given(binds, level, " ".join(given.origin for given in used))
