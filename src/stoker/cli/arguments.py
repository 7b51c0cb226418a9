"""From the table of options to the command line, by argparse.

Not click: it imports `threading`, and a gevent server must not import that before it has patched.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from stoker.config import DEFAULTS, OPTIONS, Option, others
from stoker.config.sources import PARTS, Given, Level, suggest
from stoker.config.values import SIZES, Size
from stoker.errors import ConfigError

GROUPS = {
    "application": "what is served",
    "engine": "how it waits",
    "sockets": "where it is served",
    "workers": "processes",
    "times": "timeouts, in seconds",
    "limits": "limits of HTTP",
    "process": "the process",
    "reload": "reload while developing",
    "logs": "logs",
    "checks": "in place of serving",
}


@dataclass
class Outcome:
    """What the command line said: options, the file of --config, and whether only the version is wanted."""

    given: dict[str, Given] = field(default_factory=dict)
    path: str | None = None
    version: bool = False


class Parser(argparse.ArgumentParser):
    """A parser that raises ConfigError where argparse ends the process, and suggests what may have been meant."""

    def __init__(self, **more: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **more)

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError."""
        raise ConfigError(f"{message} (see {self.prog} --help)")

    def parse(self, words: Sequence[str], namespace: argparse.Namespace) -> argparse.Namespace:
        """Parse all the words. Raises ConfigError for one that is not known."""
        namespace, unknown = self.parse_known_args(words, namespace)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings]
            word = unknown[0].partition("=")[0]
            self.error(
                f"{word} is no option{suggest(word, known)}"
                if word.startswith("-")
                else f"{word!r} is one word too many"
            )
        return namespace


class Take(argparse.Action):
    """Keep what an option was given, and by which flag."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Put the value into the outcome; that of a repeated option is added to the list."""
        given: dict[str, Given] = namespace.outcome.given
        origin = option_string or self.dest.upper()
        value = self.const if self.nargs == 0 else values
        if value is None:
            return
        if self.dest in OPTIONS and OPTIONS[self.dest].repeated:
            before = given.get(self.dest)
            value = f"{before.value},{value}" if before else value
        given[self.dest] = Given(value, Level.COMMAND_LINE, origin)


class Refuse(argparse.Action):
    """A flag of another server that is not offered here: the error says what to do instead."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Raise ConfigError."""
        raise ConfigError(f"{option_string} is not offered: {self.const}")


class Keep(argparse.Action):
    """--config and --version, which are no options of the server."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Set the attribute of the outcome."""
        setattr(namespace.outcome, self.dest, True if self.nargs == 0 else values)


def flags(name: str) -> list[str]:
    """The flags of an option: its own, then its aliases; a switch has one for each position."""
    option, own = OPTIONS[name], "--" + name.replace("_", "-")
    if name == "app":
        return []
    switch = [own, "--no-" + own[2:]] if is_switch(name) else [own]
    return [*switch, *option.aliases, *option.constants]


def is_switch(name: str) -> bool:
    """Whether an option takes no value."""
    return not OPTIONS[name].metavar


def add(group: Any, name: str, option: Option) -> None:
    """Add one option of the table."""
    text = option.help.replace("%", "%%") + default_text(name)
    own = "--" + name.replace("_", "-")
    if name == "app":
        group.add_argument(name, nargs="?", action=Take, metavar=option.metavar, help=text)
    elif is_switch(name):
        opposite = "--no-" + own[2:]
        shown, hidden = (opposite, own) if DEFAULTS[name] is True else (own, opposite)
        for word in (shown, hidden):
            said = argparse.SUPPRESS if word == hidden else text if shown == own else f"do not {text}"
            group.add_argument(word, dest=name, nargs=0, const=word == own, action=Take, help=said)
    else:
        words = sorted([own, *option.aliases], key=len)
        short = [word for word in words if not word.startswith("--")]
        group.add_argument(*short, own, dest=name, action=Take, metavar=option.metavar, help=text)
        long = [word for word in option.aliases if word not in short]
        if long:
            group.add_argument(*long, dest=name, action=Take, metavar=option.metavar, help=argparse.SUPPRESS)
    for word, value in option.constants.items():
        group.add_argument(word, dest=name, nargs=0, const=value, action=Take, help=argparse.SUPPRESS)


def size(count: int) -> str:
    """A number of bytes with the largest unit that it is a multiple of: 64k."""
    for unit, factor in reversed(SIZES.items()):
        if count and count % factor == 0:
            return f"{count // factor}{unit}"
    return str(count)


def default_text(name: str) -> str:
    """The default for the help: " (default: 30)"."""
    default = DEFAULTS[name]
    if default in (None, "", ()) or isinstance(default, bool) or name == "access_logformat":
        return ""
    if isinstance(default, tuple):
        shown = " ".join(default)
    elif name == "socket_mode":
        shown = f"{default:o}"
    elif isinstance(OPTIONS[name].check, Size):
        shown = size(int(str(default)))
    else:
        shown = f"{default:g}" if isinstance(default, float) else str(default)
    return f" (default: {shown})".replace("%", "%%")


def serve_parser() -> Parser:
    """The parser of `stoker serve`."""
    parser = Parser(
        prog="stoker serve",
        usage="stoker [serve] [APP] [options]",
        description="Serve a WSGI application, or a raw TCP handler with --tcp.",
        epilog=EPILOG,
    )
    groups = {name: parser.add_argument_group(title) for name, title in GROUPS.items()}
    for name, option in OPTIONS.items():
        add(groups[option.group], name, option)
    for name, (_, metavar, text) in PARTS.items():
        groups["sockets"].add_argument(f"--{name}", dest=name, action=Take, metavar=metavar, help=text)
    checks = groups["checks"]
    checks.add_argument("-v", "--version", dest="version", nargs=0, action=Keep, help="print the version, and exit")
    parser.add_argument(
        "-c",
        "--config",
        dest="path",
        action=Keep,
        metavar="FILE",
        help="take options from this TOML file (default: stoker.toml, or [tool.stoker] in pyproject.toml)",
    )
    for word, advice in others.refused().items():
        checks.add_argument(word, nargs="?", const=advice, action=Refuse, help=argparse.SUPPRESS)
    return parser


EPILOG = """\
Each option can be given as STOKER_<OPTION> in the environment (STOKER_KEEP_ALIVE=5) and as a key in stoker.toml
(keep_alive = 5), too. The command line counts before the environment, the environment before the file.

examples:
  stoker myapp:app                                        one worker, engine epoll, on 127.0.0.1:8000
  stoker myapp:app --threads 8 --workers auto             for an application that blocks
  stoker "myapp:make('production')" --bind unix:/run/app.sock --access-log
  stoker myproject.wsgi --engine gevent --bind 0.0.0.0:8000 --bind "[::]:8000"
  stoker --tcp examples.echo:handle --engine epoll --trigger edge
  stoker myapp:app --reload                               while developing
  stoker myapp:app --print-config --check-config
"""


def parse_serve(words: Sequence[str]) -> Outcome:
    """What the words of `stoker serve` say. Raises ConfigError."""
    outcome = Outcome()
    serve_parser().parse(words, argparse.Namespace(outcome=outcome))
    return outcome
