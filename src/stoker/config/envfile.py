"""`--env-file`: NAME=VALUE lines for the application's environment, as dotenv has them."""

import os
import re
from collections.abc import Mapping, MutableMapping

from stoker.errors import ConfigError

LINE = re.compile(
    r"""\s*(?:export\s+)?(?P<name>[A-Za-z_]\w*)\s*=\s*
    (?:'(?P<single>[^']*)' | "(?P<double>(?:[^"\\]|\\.)*)" | (?P<bare>(?:(?:[^'"\s#]|(?<==)\#)(?:[^#]|(?<=\S)\#)*?)?))
    \s*(?:(?<=\s)\#.*)?""",
    re.VERBOSE | re.ASCII,
)
VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?\}", re.ASCII)
ESCAPE_OR_VARIABLE = re.compile(r"\\(?P<escaped>.)|" + VARIABLE.pattern, re.ASCII)
ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def read(path: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    r"""The variables of a file, in its order.

    A value in single quotes is taken as it is. In double quotes a backslash escapes (`\n`, `\t`, `\"`, `\\`);
    there and without quotes `${NAME}` and `${NAME:-default}` stand for a variable of the file or of `environ`. ` #`
    begins a comment. Raises ConfigError for a file that cannot be read, and for a line that is nothing of this, by its
    number.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"the environment file {path} cannot be read: {reason}") from None
    found: dict[str, str] = {}

    def expand(match: re.Match[str]) -> str:
        name = match["name"]
        return found.get(name, environ.get(name, match["default"] or ""))

    def unescape(match: re.Match[str]) -> str:
        escaped = match["escaped"]
        return expand(match) if escaped is None else ESCAPES.get(escaped, escaped)

    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = LINE.fullmatch(line.rstrip("\r"))
        if match is None or "\0" in line:
            raise ConfigError(f"{path} line {number} is not NAME=VALUE")
        if match["single"] is not None:
            value = match["single"]
        elif match["double"] is not None:
            value = ESCAPE_OR_VARIABLE.sub(unescape, match["double"])
        else:
            value = VARIABLE.sub(expand, match["bare"].rstrip())
        found[match["name"]] = value
    return found


def load(path: str, environ: MutableMapping[str, str] = os.environ) -> None:
    """Set the variables of a file; what is set already stays. Raises ConfigError as read() does."""
    for name, value in read(path, environ).items():
        environ.setdefault(name, value)
