r"""The file of --env-file: variables for the application.

A line is NAME=VALUE, may begin with `export`, and is empty or a comment if it begins with `#`. A value in single
quotes is taken as it is, one in double quotes knows the escapes of a shell and `\n`; one without quotes ends before
` #`. What the environment holds already stays, as with every program that reads such files. Nothing is interpolated.
"""

import os
import re

from stoker.config import Config
from stoker.errors import ConfigError

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)", re.DOTALL)
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(?:#.*)?')
_SINGLE = re.compile(r"'([^']*)'\s*(?:#.*)?")


def read(path: str) -> dict[str, str]:
    """The variables in a file. Raises ConfigError: it cannot be read, or a line is wrong (the message says which)."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise ConfigError(f"--env-file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--env-file {path}: it is not UTF-8") from None
    variables = {}
    for number, text in enumerate(lines, 1):
        line = text.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or "\0" in line:
            raise ConfigError(f"--env-file {path}, line {number}: this is not NAME=VALUE")
        try:
            variables[match[1]] = _value(match[2])
        except ValueError:
            raise ConfigError(f"--env-file {path}, line {number}: the quotes of {match[1]} do not close") from None
    return variables


def _value(text: str) -> str:
    if text.startswith('"'):
        double = _DOUBLE.fullmatch(text)
        if double is None:
            raise ValueError
        return re.sub(r"\\(.)", lambda escape: {"n": "\n", "t": "\t", "r": "\r"}.get(escape[1], escape[1]), double[1])
    if text.startswith("'"):
        single = _SINGLE.fullmatch(text)
        if single is None:
            raise ValueError
        return single[1]
    return re.split(r"\s#|^#", text, maxsplit=1)[0].rstrip()


def apply(config: Config) -> None:
    """Set the variables of `--env-file` in this process. Raises ConfigError."""
    if config.env_file is not None:
        for name, value in read(config.env_file).items():
            os.environ.setdefault(name, value)
