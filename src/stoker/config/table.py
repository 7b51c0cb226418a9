"""The table of options: one frozen dataclass, from which everything else about options is made.

Each field is an option. Its name with hyphens is the long flag, in upper case after STOKER_ the environment variable,
as it is the key in stoker.toml. The metadata of the field is an `Option`, which says all there is to know about it.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from stoker.config import values
from stoker.config.values import Check, Choice, Seconds, Size, Whole, flag, many, optional
from stoker.errors import ConfigError

HTTP = ("auto", "wsgi")
POOLED = ("nonblocking", "select", "poll", "epoll", "generator", "greenlet", "gevent", "asyncio", "uring")
ENGINES = ("process", "thread", *POOLED)

# What gunicorn and uvicorn call their workers, and the engine that does the same here.
WORKER_CLASSES = {
    "sync": "epoll",
    "gunicorn.workers.sync.SyncWorker": "epoll",
    "gthread": "epoll",
    "gunicorn.workers.gthread.ThreadWorker": "epoll",
    "gevent_wsgi": "gevent",
    "gevent_pywsgi": "gevent",
    "gunicorn.workers.ggevent.GeventWorker": "gevent",
    "gunicorn.workers.ggevent.GeventPyWSGIWorker": "gevent",
    "asgi": "asyncio",
    "gunicorn.workers.gasgi.ASGIWorker": "asyncio",
    "uvicorn.workers.UvicornWorker": "asyncio",
    "uvicorn.workers.UvicornH11Worker": "asyncio",
    "uvicorn_worker.UvicornWorker": "asyncio",
    "uvicorn_worker.UvicornH11Worker": "asyncio",
}
GTHREAD = ("gthread", "gunicorn.workers.gthread.ThreadWorker")

# An option that switches another one on, when that one is not given.
SWITCHES = {"access_log": "access_logfile"}

# What an option that was not given follows from, where it is not its default.
FOLLOWS = {"threads": "engine", "access_log": "access_logfile", "interface": "tcp"}

COMBINED = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """What there is to know about one option beside its name and its default.

    `check` turns text or a Python value into the value that is kept. `aliases` are other flags for it, `constants`
    flags that take no value and stand for one. `engines`, `interfaces` and `needs` say where it has an effect: on
    these engines, with these interfaces, when these other options are set (empty: everywhere).
    """

    group: str
    check: Check
    metavar: str
    help: str
    unit: str = ""
    aliases: tuple[str, ...] = ()
    constants: Mapping[str, object] = dataclasses.field(default_factory=dict)
    repeated: bool = False
    engines: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    command_line_only: bool = False


def option(group: str, default: object, check: Check, metavar: str, help: str, **more: Any) -> Any:
    """A field of the table."""
    return dataclasses.field(default=default, metadata={"option": Option(group, check, metavar, help, **more)})


def importable(value: object) -> object:
    """Text that names something to import, or the callable itself; None for nothing."""
    if value is None or callable(value):
        return value
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is neither a text that names something to import nor callable")
    return values.text(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that can be chosen, checked: an instance is good to run.

    The values may also be given as the text that the command line takes (`workers="auto"`, `limit_request_body="1m"`,
    `bind="unix:/run/app.sock"`); what is kept has the type of the field. Raises ConfigError for a value that is wrong,
    for an unknown name TypeError.
    """

    # What is served.
    app: Any = option(
        "application", None, importable, "APP", "the application: module:name, module:name.attribute or module:make()"
    )
    tcp: Any = option(
        "application", None, importable, "MODULE:NAME", "serve this raw TCP handler, in place of an application"
    )
    factory: bool = option(
        "application", False, flag, "", "APP makes the application: it is called without arguments", interfaces=HTTP
    )
    interface: str = option(
        "application",
        "auto",
        Choice(("auto", "wsgi", "tcp")),
        "WHICH",
        "what the application speaks: auto, wsgi or tcp",
    )
    root_path: str = option(
        "application", "", values.root_path, "PATH", "the path that the application is mounted at", interfaces=HTTP
    )
    app_dir: tuple[str, ...] = option(
        "application",
        (),
        many(values.text),
        "DIR",
        "look for the application here before the working directory",
        aliases=("--pythonpath",),
        repeated=True,
    )
    chdir: str | None = option(
        "application",
        None,
        optional(values.directory),
        "DIR",
        "work in this directory; stoker.toml is looked for in it",
    )
    env_file: str | None = option(
        "application",
        None,
        optional(values.text),
        "FILE",
        "set the application's environment from the NAME=VALUE lines of this file; what is set already stays",
    )

    # How it is served.
    engine: str = option(
        "engine",
        "epoll",
        Choice(ENGINES, WORKER_CLASSES),
        "NAME",
        "how connections wait: one of `stoker engines`",
        aliases=("-k", "--worker-class"),
    )
    threads: int = option(
        "engine",
        0,
        Whole(0, 4096),
        "N",
        "0: the application runs inline, one request at a time in each worker; N: in a pool of N threads",
        engines=POOLED,
        interfaces=HTTP,
    )
    trigger: str = option(
        "engine",
        "level",
        Choice(("level", "edge")),
        "WHICH",
        "how epoll tells that a socket is ready: level or edge",
        engines=("epoll",),
    )
    spin: bool = option(
        "engine", False, flag, "", "never pause while nothing happens: a pure busy loop", engines=("nonblocking",)
    )
    poller: str = option(
        "engine",
        "auto",
        Choice(("auto", "select", "poll", "epoll")),
        "WHICH",
        "what the hub waits by: auto, select, poll or epoll",
        engines=("greenlet",),
    )
    loop: str = option(
        "engine",
        "auto",
        Choice(("auto", "asyncio", "uvloop")),
        "WHICH",
        "the event loop: auto (uvloop where it is installed), asyncio or uvloop",
        engines=("asyncio",),
    )
    patch: bool = option(
        "engine", True, flag, "", "let gevent replace the blocking parts of the standard library", engines=("gevent",)
    )

    # Where it is served.
    bind: tuple[str, ...] = option(
        "sockets",
        ("127.0.0.1:8000",),
        values.bindings,
        "ADDRESS",
        f"listen here: {values.BIND_FORMS}",
        aliases=("-b",),
        repeated=True,
    )
    reuse_port: bool = option("sockets", False, flag, "", "a listening socket for each worker (SO_REUSEPORT)")
    backlog: int = option(
        "sockets",
        2048,
        Whole(1, 1 << 20),
        "N",
        "how many connections the kernel keeps waiting; net.core.somaxconn caps it",
    )
    socket_mode: int = option("sockets", 0o666, values.octal, "MODE", "the permissions of unix sockets, octal")
    max_connections: int | None = option(
        "sockets",
        None,
        optional(Whole(1)),
        "N",
        "connections per worker; by default what the engine can hold (see `stoker engines`)",
        aliases=("--worker-connections",),
    )
    max_connections_per_ip: int = option(
        "sockets", 0, Whole(0), "N", "connections per client address and worker; 0: no limit"
    )
    on_overload: str = option(
        "sockets",
        "wait",
        Choice(("wait", "503", "close")),
        "WHAT",
        "at the limit of connections, when none is idle: let new ones wait, answer 503 or close",
    )

    # Workers.
    workers: int = option(
        "workers",
        1,
        values.workers,
        "N",
        "worker processes; auto: as many as the CPUs this process may use; else $WEB_CONCURRENCY",
        aliases=("-w",),
    )
    max_requests: int = option(
        "workers",
        0,
        Whole(0),
        "N",
        "replace a worker after so many requests; 0: never",
        aliases=("--limit-max-requests",),
        interfaces=HTTP,
    )
    max_requests_jitter: int = option(
        "workers",
        0,
        Whole(0),
        "N",
        "up to so many more, chosen at random for each worker",
        aliases=("--limit-max-requests-jitter",),
        interfaces=HTTP,
        needs=("max_requests",),
    )
    preload: bool = option("workers", False, flag, "", "import the application before the workers are forked")

    # Times.
    header_timeout: float = option(
        "times", 10.0, Seconds(zero=False), "SECONDS", "for the whole head of a request", interfaces=HTTP
    )
    body_timeout: float = option(
        "times", 30.0, Seconds(zero=False), "SECONDS", "for the next piece of a request's body", interfaces=HTTP
    )
    write_timeout: float = option(
        "times", 30.0, Seconds(zero=False), "SECONDS", "for the client to take the next piece of a response"
    )
    keep_alive: float = option(
        "times",
        75.0,
        Seconds(),
        "SECONDS",
        "for the next request on an idle connection; 0: a request each",
        aliases=("--timeout-keep-alive",),
        interfaces=HTTP,
    )
    request_timeout: float = option(
        "times", 0.0, Seconds(), "SECONDS", "the application's time for one request; 0: no limit", interfaces=HTTP
    )
    worker_timeout: float = option(
        "times",
        30.0,
        Seconds(),
        "SECONDS",
        "replace a worker whose loop has not turned for so long while no application code ran; 0: never",
        aliases=("-t", "--timeout", "--timeout-worker-healthcheck"),
    )
    graceful_timeout: float = option(
        "times",
        30.0,
        Seconds(),
        "SECONDS",
        "for what is under way when a worker stops",
        aliases=("--timeout-graceful-shutdown",),
    )

    # Limits.
    limit_request_line: int = option("limits", 8190, Size(16), "SIZE", "bytes of a request line", interfaces=HTTP)
    limit_request_fields: int = option("limits", 100, Whole(1), "N", "header fields of a request", interfaces=HTTP)
    limit_request_field_size: int = option(
        "limits",
        8190,
        Size(16),
        "SIZE",
        "bytes of a header field",
        aliases=("--limit-request-field_size",),
        interfaces=HTTP,
    )
    limit_request_head: int = option(
        "limits",
        65536,
        Size(64),
        "SIZE",
        "bytes of the head of a request: its line and all its fields",
        aliases=("--h11-max-incomplete-event-size",),
        interfaces=HTTP,
    )
    limit_request_body: int = option("limits", 1 << 30, Size(), "SIZE", "bytes of a request's body", interfaces=HTTP)
    min_rate: int = option(
        "limits",
        0,
        Size(),
        "SIZE",
        "bytes a second below which the body of a request is given up; 0: no limit",
        interfaces=HTTP,
    )
    header_map: str = option(
        "limits",
        "drop",
        Choice(("drop", "refuse")),
        "WHAT",
        "a field whose name holds an underscore: drop leaves it out, refuse answers 400",
        interfaces=HTTP,
    )
    server_header: bool = option("limits", True, flag, "", "send the field Server: stoker", interfaces=HTTP)

    # The process.
    pid: str | None = option(
        "process", None, optional(values.text), "FILE", "write the master's process id here", aliases=("-p",)
    )
    user: str | None = option(
        "process",
        None,
        optional(values.user),
        "USER",
        "run the workers as this user, by name or number",
        aliases=("-u",),
    )
    group: str | None = option(
        "process",
        None,
        optional(values.group),
        "GROUP",
        "run the workers as this group, by name or number",
        aliases=("-g",),
    )
    umask: int | None = option(
        "process", None, optional(values.octal), "MODE", "permissions that new files do not get, octal", aliases=("-m",)
    )
    proc_name: str = option(
        "process", "stoker", values.text, "NAME", "how the processes are called in ps", aliases=("-n", "--name")
    )
    keys: bool = option("process", True, flag, "", "take keys from the terminal: q, r, s, +, -, h, then Enter")

    # Reload.
    reload: bool = option("reload", False, flag, "", "replace the workers when a file of the application changes")
    reload_dir: tuple[str, ...] = option(
        "reload",
        (),
        many(values.text),
        "DIR",
        "watch this directory; by default the working directory",
        repeated=True,
        needs=("reload",),
    )
    reload_include: tuple[str, ...] = option(
        "reload",
        ("*.py",),
        many(values.text),
        "GLOB",
        "watch the files whose name matches",
        repeated=True,
        needs=("reload",),
    )
    reload_exclude: tuple[str, ...] = option(
        "reload",
        (".*", "*.py[cod]", "*.sw?", "*~"),
        many(values.text),
        "GLOB",
        "but not those whose name matches this",
        repeated=True,
        needs=("reload",),
    )

    # Logs.
    access_log: bool = option("logs", None, optional(flag), "", "log a line for each request", interfaces=HTTP)
    access_logfile: str = option(
        "logs",
        None,
        optional(values.text),
        "FILE",
        "append these lines to this file; - is standard output. Switches --access-log on",
        interfaces=HTTP,
    )
    access_logformat: str = option(
        "logs",
        COMBINED,
        values.text,
        "FORMAT",
        "gunicorn's atoms, and %(wait)s %(app)s %(write)s",
        interfaces=HTTP,
        needs=("access_log",),
    )
    access_log_json: bool = option(
        "logs", False, flag, "", "log each request as a JSON object", interfaces=HTTP, needs=("access_log",)
    )
    error_logfile: str = option(
        "logs",
        "-",
        values.text,
        "FILE",
        "append the server's log to this file; - is standard error",
        aliases=("--log-file",),
    )
    log_level: str = option(
        "logs",
        "info",
        Choice(("debug", "info", "warning", "error", "critical"), {"trace": "debug"}),
        "LEVEL",
        "the least that is logged: debug, info, warning, error or critical",
    )
    color: str = option(
        "logs",
        "auto",
        Choice(("auto", "always", "never")),
        "WHEN",
        "colour in the log: auto (on a terminal), always or never",
        constants={"--no-color": "never", "--use-colors": "always", "--no-use-colors": "never"},
    )
    json: bool = option("logs", False, flag, "", "log to standard output, a JSON object a line", command_line_only=True)

    # In place of serving.
    check_config: bool = option(
        "checks",
        False,
        flag,
        "",
        "check the options, import the application in a child process, and exit",
        command_line_only=True,
    )
    print_config: bool = option(
        "checks", False, flag, "", "print every option with its value and its origin, and exit", command_line_only=True
    )

    def __post_init__(self) -> None:
        if self.engine in GTHREAD and not self.threads:
            object.__setattr__(self, "threads", 1)
        for name, known in OPTIONS.items():
            try:
                value = known.check(getattr(self, name))
            except ValueError as wrong:
                raise ConfigError(f"{name}: {wrong}") from None
            object.__setattr__(self, name, value)
        chosen = [name for name, default in DEFAULTS.items() if getattr(self, name) != default]
        for name, reason in ineffective(vars(self), chosen).items():
            raise ConfigError(f"{name} {reason}")
        self._settle()

    def _settle(self) -> None:
        """Fill in what follows from other options, and refuse what contradicts them."""
        if self.access_log is None:
            object.__setattr__(self, "access_log", self.access_logfile is not None)
        if self.access_logfile is None:
            object.__setattr__(self, "access_logfile", "-")
        if self.interface == "tcp" and self.tcp is None:
            object.__setattr__(self, "tcp", self.app)
            object.__setattr__(self, "app", None)
        if self.tcp is not None:
            if self.app is not None:
                raise ConfigError(
                    "app and tcp are both given: a server serves either an application or a raw TCP handler"
                )
            if self.interface == "wsgi":
                raise ConfigError("interface wsgi contradicts tcp: a raw TCP handler is no WSGI application")
            if self.on_overload == "503":
                raise ConfigError(
                    "on_overload 503 is an answer of HTTP, which a raw TCP handler does not speak: wait or close"
                )
            object.__setattr__(self, "interface", "tcp")
        if self.reload and not isinstance(self.app if self.tcp is None else self.tcp, str | None):
            raise ConfigError(
                "reload: an object cannot be imported again; name the application by a text, as 'module:name'"
            )


def ineffective(config: Mapping[str, object], names: Iterable[str]) -> dict[str, str]:
    """Which of the options `names` have no effect with the rest of `config`, each with the reason."""
    engine = str(config["engine"])
    interface = "tcp" if config["tcp"] is not None else str(config["interface"])
    reasons = {}
    for name in names:
        option = OPTIONS[name]
        missing = [other for other in option.needs if not config[other] and not config.get(SWITCHES.get(other, ""))]
        if option.engines and engine not in option.engines:
            reasons[name] = f"has no effect on engine {engine} (it is for {', '.join(option.engines)})"
        elif name == "threads" and engine == "gevent" and config["patch"]:
            reasons[name] = (
                "has no effect on engine gevent, where each request has its own greenlet (unless --no-patch)"
            )
        elif option.interfaces and interface not in option.interfaces:
            reasons[name] = "has no effect on a raw TCP handler (--tcp): it is about HTTP"
        elif missing:
            reasons[name] = f"has no effect without --{missing[0].replace('_', '-')}"
    return reasons


OPTIONS: dict[str, Option] = {field.name: field.metadata["option"] for field in dataclasses.fields(Config)}
DEFAULTS: dict[str, object] = {field.name: field.default for field in dataclasses.fields(Config)}
