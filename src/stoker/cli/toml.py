"""Writing TOML: the values that options have."""

import json
from collections.abc import Mapping

OCTAL = ("socket_mode", "umask")


def value(name: str, this: object) -> str:
    """A value of the option `name` as TOML."""
    if isinstance(this, bool):
        return "true" if this else "false"
    if name in OCTAL and isinstance(this, int):
        return f"0o{this:03o}"
    if isinstance(this, int | float):
        return f"{this:.0f}" if isinstance(this, float) and this.is_integer() else str(this)
    if isinstance(this, list | tuple):
        return "[" + ", ".join(value("", one) for one in this) + "]"
    return json.dumps(str(this), ensure_ascii=False).replace("\x7f", "\\u007f")  # a basic string of TOML 1.0


def lines(values: Mapping[str, object], notes: Mapping[str, str]) -> list[str]:
    """A line for each value, with its note behind it; one that is not set becomes a comment."""
    written = [
        f"{name} = {value(name, this)}" if this is not None else f"# {name} is not set" for name, this in values.items()
    ]
    width = min(60, max((len(line) for line in written), default=0))
    return [f"{line:<{width}}  # {note}" for line, note in zip(written, notes.values(), strict=True)]
