"""Renders docs/engines.md and the tables of the READMEs from the registry: `python docs/engines.py`."""

from pathlib import Path

from stoker.cli.documents import code, table
from stoker.config import OPTIONS
from stoker.engines import REGISTRY, EngineInfo

HERE = Path(__file__).resolve().parent
MADE = "<!-- Made by `python docs/engines.py` from the registry of engines: do not edit. -->"

INTRODUCTION = """\
An engine is how a connection waits: `--engine NAME`. Everything else is the same under all of them: one HTTP
parser, one handler for a connection, the same limits, timeouts, signals and logs. `stoker engines` prints this
table for the machine it runs on, with the reason where an engine cannot run there; `stoker engines -v` adds what
copy-on-write shares.

Two questions tell the engines apart. How is the kernel asked who is ready? And what of a connection is kept while
it waits?"""

NOTES = {
    "process": """\
A child is forked for each connection; the parent closes its copy of the socket. A crash or a leak ends with its
connection, and a request that runs too long is ended for certain: the child is killed. A fork is the dearest way
to take a connection, and memory is shared only until it is written to, which reference counts do all the time.""",
    "thread": """\
The plainest model in which everything may block. Each thread has a stack of its own; the GIL lets one at a time
run Python, while the others wait in the kernel.""",
    "nonblocking": """\
No readiness call at all: the engine tries to accept, then tries each connection in turn. It is here because the
notes begin with it. While nothing happens it pauses, longer and longer, so that an idle server does not burn a
core; `--spin` keeps the pure busy loop.""",
    "select": """\
The oldest readiness call. What it limits is the number of a descriptor, not how many there are: a connection
whose descriptor is 1,024 or above is refused, with a line in the log and a counter, and the others are served on.""",
    "poll": """\
As `select`, without its limit. It sleeps in the kernel until something is ready, but every call passes the whole
list, so its cost grows with the connections that are merely open.""",
    "epoll": """\
The kernel keeps the list and hands back only what has become ready: the default. `--trigger edge` tells of a
change once, so the engine accepts and receives until the kernel has nothing more, and remembers who it has not
finished with.""",
    "generator": """\
The accept loop, the timers and the connections are plain generators in one scheduler, without async and await:
coroutines by `yield`, taken seriously. Raw handlers may `spawn` and `join`.""",
    "greenlet": """\
A hub of our own on the package greenlet: a connection is code that seems to block and in truth switches to the
hub, which waits by select, poll or epoll (`--poller`). Nothing is patched: an application that blocks in the
standard library holds its worker up.""",
    "gevent": """\
Connections are greenlets on gevent's hub. The standard library is patched before the application is imported,
first thing after fork (`--preload`: in the master), so that `time.sleep`, sockets and locks switch. `--no-patch`
leaves the library as it is; then `--threads` counts again.""",
    "asyncio": """\
The event loop of asyncio, or uvloop (`--loop`), with our own epoll object nested in it. Raw handlers that need
asyncio's futures and tasks run here.""",
    "uring": """\
The kernel is not asked who is ready, it is told what to do and says what is done. One receive stands for a
connection's whole life and fills buffers from a common ring, sends are queued, and one system call a turn submits
them and waits. A worker that is alone at its listener has the kernel accept, too. Where a kernel, a sysctl or a
container's seccomp filter refuses io_uring, `stoker engines` says which; `epoll` serves the same.""",
}

CHOOSING = """\
- **An application that computes, or answers from memory**: `epoll`, inline, as many `--workers` as there are CPUs
  (`--workers auto`). It is the default.
- **An application that waits** for a database or another service: `epoll --threads N`. N is how many may wait at
  once.
- **Very many that wait**, in pure Python that gevent can patch: `gevent`.
- **Code that must not share a process**, or that has to be killed when it hangs: `process`, with
  `--request-timeout`.
- **Raw TCP with asyncio's libraries**: `asyncio`.
- The others are for learning and comparing. They pass the same tests.

What a choice costs on your machine with your application is a matter of measuring; a tool for that comes later."""


def row(info: EngineInfo) -> tuple[str, ...]:
    """One engine in the table."""
    return (
        f"[{info.name}](#{info.name})",
        info.waits,
        info.suspended,
        "may, in place" if info.blocking_ok else f"needs {code('--threads')}",
        f"{info.cap:,}" if info.cap else "descriptors less 64",
        "yes" if info.spawns else "",
    )


def section(info: EngineInfo) -> list[str]:
    """What there is to know about one engine."""
    own = [
        f"{code('--' + name.replace('_', '-'))} ({option.help})"
        for name, option in OPTIONS.items()
        if option.engines == (info.name,)
    ]
    module = info.target.partition(":")[0].replace(".", "/")
    facts = [f"- costs: {info.costs}"]
    facts += [f"- needs the package {code(info.requires)}: {code(f'pip install stoker[{info.requires}]')}"] * bool(
        info.requires
    )
    facts += [f"- options of its own: {'; '.join(own)}"] * bool(own)
    facts += [f"- {code('--threads')} has {'an effect' if info.pooled else 'no effect, and is refused'}"]
    facts += [f"- source: [src/{module}.py](../src/{module}.py)"]
    return [f"## {info.name}", "", NOTES[info.name], "", *facts, ""]


def render() -> str:
    """The whole document."""
    head = ("engine", "how it waits", "what is kept", "an application that blocks", "connections a worker", "`spawn`")
    return "\n".join(
        [
            "# Engines",
            "",
            MADE,
            "",
            INTRODUCTION,
            "",
            *table(head, map(row, REGISTRY.values())),
            "## Choosing",
            "",
            CHOOSING,
            "",
            *[line for info in REGISTRY.values() for line in section(info)],
        ]
    )


HEADS = {
    "README.md": ("engine", "how it waits", "what is kept", "an application that blocks"),
    "README.zh-CN.md": ("引擎", "如何等待", "保留什么", "会阻塞的应用"),
}


def readme(name: str, text: str) -> str:
    """A README, with the table between its two marks made anew."""
    before, _, rest = text.partition("<!-- engines -->\n")
    _, _, after = rest.partition("<!-- /engines -->\n")
    rows = [(f"`{info.name}`", *row(info)[1:4]) for info in REGISTRY.values()]
    made = "\n".join(table(HEADS[name], rows))
    return f"{before}<!-- engines -->\n{made}<!-- /engines -->\n{after}"


def documents() -> dict[Path, str]:
    """Every file that has something of the registry in it, as it should be."""
    made = {HERE / "engines.md": render()}
    for name in HEADS:
        path = HERE.parent / name
        made[path] = readme(name, path.read_text("utf-8"))
    return made


if __name__ == "__main__":
    for path, text in documents().items():
        path.write_text(text, "utf-8")
