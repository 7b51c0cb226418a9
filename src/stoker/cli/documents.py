"""Renders the documents that are made from tables: `python -m stoker.cli.documents` writes them into docs/.

A test renders them, too, and fails where a committed file differs.
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from stoker.cli.arguments import GROUPS, default_text, flags, is_switch
from stoker.config import DEFAULTS, OPTIONS, others
from stoker.config.sources import PARTS
from stoker.config.table import WORKER_CLASSES

MADE = "<!-- Made by `python -m stoker.cli.documents` from the table of options: do not edit. -->"


SOURCES = """\
An option is given in one of these places; the first that gives it counts:

1. on the command line: `--keep-alive 5`;
2. in the environment: `STOKER_KEEP_ALIVE=5`. An unknown `STOKER_` variable is warned about; those that Kubernetes
   sets for a service called stoker (`STOKER_PORT=tcp://…`, `STOKER_SERVICE_HOST`, …) are ignored;
3. in a file: `keep_alive = 5` in `stoker.toml`, or under `[tool.stoker]` in `pyproject.toml`, in the directory of
   `--chdir`, else in the working directory; `--config FILE` (`-c`, `STOKER_CONFIG`) names another one. An unknown key
   is an error;
4. the default. That of `--workers` is `$WEB_CONCURRENCY`, where it is set.

`stoker.serve(app, keep_alive=5)` takes the same names, and reads neither the environment nor a file.

A switch is given as `--name` or `--no-name`, elsewhere as true or false. Where several values are possible, the flag
is repeated, or the values are separated by commas; in TOML they are a list. Sizes are in bytes, or end in k, m or g;
times are in seconds, and may have a fraction. Relative paths count from the working directory, after `--chdir`.

An option on the command line that has no effect with the chosen engine or interface is an error; from the
environment or a file it is left out, with a warning. `--print-config` shows every value and where it comes from."""

SWITCHING = """\
Every flag of gunicorn 27 and of uvicorn 0.54, and what it is here: the same, an alias, or refused. A flag
that is refused, used here, is an error that says what this page says. All of Stoker's own: [options.md](options.md).

    gunicorn myapp:app -k gthread --threads 8 -w 4 -b 0.0.0.0:8000 --access-logfile -
    stoker   myapp:app -k gthread --threads 8 -w 4 -b 0.0.0.0:8000 --access-logfile -

What to know before switching:

- `gunicorn.conf.py` is not executed. `stoker -c gunicorn.conf.py` prints it as TOML, with a remark for what it cannot
  translate. Hooks are not offered. `GUNICORN_CMD_ARGS`, `UVICORN_*` and `PORT` are not read, and a warning says so.
- `--timeout` is not the application's time for a request, but how long a worker's loop may stand still while no
  application code runs. The time for a request is `--request-timeout`, and off.
- The signals of the master are gunicorn's: TERM drains, INT and QUIT stop at once, HUP reloads, TTIN and TTOU add and
  take a worker, USR1 opens the logs again. USR2 and WINCH have no meaning.
- Behind a proxy: `X-Forwarded-For` and its kin are handed to the application as they came, and change nothing.
- HTTP is stricter: what a proxy and a server could read differently is refused with 400. The access log has what
  reached the application; what was refused before that is logged at `--log-level debug`."""

CLASSES = """\
`-k gthread` without `--threads` is a pool of one thread. `eventlet` and `tornado` are not offered: use `greenlet` or
`gevent`, and `asyncio`. The names of Stoker's own engines can be used after `-k`, too."""


def code(text: str) -> str:
    """Text as code in a cell of a table: blanks stay, and a bar does not end the cell."""
    return f"`{text}`".replace("|", "\\|")


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """A table of Markdown."""
    return [
        f"| {' | '.join(head)} |",
        "| " + " | ".join("---" for _ in head) + " |",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]


def where(name: str) -> str:
    """Where an option has an effect, in words; empty: everywhere."""
    option = OPTIONS[name]
    words = []
    if option.engines:
        words.append(
            f"engines {', '.join(option.engines)}" if len(option.engines) > 1 else f"engine {option.engines[0]}"
        )
    if option.interfaces:
        words.append("HTTP")
    words += [f"with {code('--' + other.replace('_', '-'))}" for other in option.needs]
    if option.command_line_only:
        words.append("command line only")
    return "; ".join(words)


def option_row(name: str) -> tuple[str, ...]:
    """The line of an option: its flags, its default, what it does, where it has an effect."""
    option = OPTIONS[name]
    metavar = f" {option.metavar}" if option.metavar else ""
    if name == "app":
        shown = code(option.metavar)
    else:
        value_flags = [code(flag + ("" if flag in option.constants else metavar)) for flag in flags(name)[:1]]
        shown = ", ".join([*value_flags, *(code(flag) for flag in flags(name)[1:])])
    if is_switch(name):
        default = "on" if DEFAULTS[name] else "off"
    else:
        default = default_text(name).removeprefix(" (default: ").removesuffix(")").replace("%%", "%")
    return shown, code(default) if default else "", option.help.replace("|", "\\|"), where(name)


def options() -> str:
    """docs/options.md."""
    written = [
        "# Options",
        "",
        MADE,
        "",
        SOURCES,
        "",
    ]
    for group, title in GROUPS.items():
        written += [f"## {title[0].upper()}{title[1:]}", ""]
        rows = [option_row(name) for name, option in OPTIONS.items() if option.group == group]
        if group == "sockets":
            rows += [(code(f"--{name} {metavar}"), "", text, "") for name, (_, metavar, text) in PARTS.items()]
        written += table(("option", "default", "what it does", "where"), rows)
    return "\n".join(written)


ALSO_HERE = {
    "-h": "--help",
    "--help": "--help",
    "-v": "--version",
    "--version": "--version",
    "-c": "--config",
    "--config": "--config",
}


def here(flag: str) -> str | None:
    """The flag of Stoker that a flag of another server is, or None where there is none."""
    if flag in ALSO_HERE:
        return ALSO_HERE[flag]
    if flag.removeprefix("--") in PARTS:
        return flag
    for name in OPTIONS:
        if flag in flags(name):
            return "--" + name.replace("_", "-")
    return None


def verdict(other: others.Other) -> tuple[str, ...]:
    """The line of a flag of another server: the flag, what it is here, a remark."""
    shown = ", ".join(code(flag) for flag in other.flags.split())
    if other.advice:
        return shown, "refused", other.advice
    found = {flag: here(flag) for flag in other.flags.split()}
    long = [flag for flag in found if flag.startswith("--")]
    same = all(flag == found[flag] or flag == "--no-" + str(found[flag])[2:] for flag in long)
    names = sorted({name for name in found.values() if name})
    return shown, "same" if same else "alias of " + ", ".join(code(name) for name in names), other.note


def from_gunicorn_and_uvicorn() -> str:
    """docs/from-gunicorn-and-uvicorn.md."""
    head = ("flag", "here", "remark")
    classes = [(code(theirs), code("--engine " + ours)) for theirs, ours in WORKER_CLASSES.items()]
    settings = [
        (code(other.setting), f"`{other.note}`" if other.note else "refused", other.advice)
        for other in others.SETTINGS_WITHOUT_FLAG
    ]
    text = [
        "# From gunicorn and uvicorn",
        "",
        MADE,
        "",
        SWITCHING,
        "",
        "## Flags of gunicorn",
        "",
        *table(head, map(verdict, others.FROM_GUNICORN)),
        "Settings of `gunicorn.conf.py` that have no flag:",
        "",
        *table(("setting", "here", "remark"), settings),
        f"Hooks (`on_starting`, `post_fork`, …): refused; {others.HOOK}.",
        "",
        "## Flags of uvicorn",
        "",
        *table(head, map(verdict, others.FROM_UVICORN)),
        "## Worker classes",
        "",
        CLASSES,
        "",
        *table(("worker class", "here"), classes),
    ]
    return "\n".join(text)


DOCUMENTS: dict[str, Callable[[], str]] = {
    "options.md": options,
    "from-gunicorn-and-uvicorn.md": from_gunicorn_and_uvicorn,
}


def main(folder: str = "docs") -> int:
    """Write the documents."""
    for name, render in DOCUMENTS.items():
        Path(folder, name).write_text(render(), "utf-8")
        print(f"{folder}/{name}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
