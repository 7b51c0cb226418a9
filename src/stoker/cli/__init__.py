"""The command line: a file per command, each with `run(arguments) -> exit status`.

Exit status: 0 what was asked for holds; 1 standard output cannot be written; 2 an option or a file is wrong; 3 the
application or a worker cannot start; 130 stopped by Ctrl-C before anything was served.
"""

import importlib
import os
import platform
import sys
from collections.abc import Sequence

from stoker import __version__, build
from stoker.errors import BootError, ConfigError, StokerError

NO_OUTPUT, WRONG_USE, NO_BOOT, INTERRUPTED = 1, 2, 3, 130

COMMANDS = {
    "serve": "serve an application (what `stoker APP` does, too)",
    "engines": "show the engines: how they wait, what they cost, whether they run here",
}

HELP = """usage: stoker [COMMAND] ...

Serve a WSGI application or a raw TCP handler; the concurrency model is an option.

commands:
{commands}

options:
  -h, --help     show this; `stoker COMMAND --help` shows the options of a command
  -v, --version  show the version, and whether it is compiled

examples:
  stoker myapp:app                                     on 127.0.0.1:8000
  stoker serve "myapp:make()" --engine gevent --workers 4 --bind 0.0.0.0:8000
  stoker serve --tcp examples.echo:handle --engine epoll --trigger edge
  stoker engines -v
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name; return the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words and words[0] in ("-h", "--help"):
            say(HELP.format(commands="\n".join(f"  {name:<14} {text}" for name, text in COMMANDS.items())).rstrip())
            return 0
        if words and words[0] in ("-v", "--version"):
            say(version())
            return 0
        if build.complaints:
            raise BootError(build.refusal())
        command = words.pop(0) if words and words[0] in COMMANDS else "serve"
        status: int = importlib.import_module(f"stoker.cli.{command}").run(words)
        return status
    except ConfigError as error:
        print(f"stoker: {error}", file=sys.stderr)
        return WRONG_USE
    except BootError as error:
        print(f"stoker: {error}", file=sys.stderr)
        return NO_BOOT
    except NoOutput as error:
        print(f"stoker: standard output cannot be written: {error}", file=sys.stderr)
        return NO_OUTPUT
    except KeyboardInterrupt:
        return INTERRUPTED


class NoOutput(StokerError):
    """What a command prints could not be written: a full disk, or nobody who reads the pipe any more."""


def say(text: str) -> None:
    """Print on standard output. Raises NoOutput."""
    try:
        print(text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python tries again when it ends, and complains
        raise NoOutput(error.strerror) from None


def version() -> str:
    """The version of Stoker and of Python, and how it runs: one line."""
    return f"stoker {__version__}, {build.describe()}, {platform.python_implementation()} {platform.python_version()}"
