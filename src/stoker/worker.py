"""One worker process: it wires application, handler, pool and engine together, and keeps in touch with the master.

What reaches a worker is always one byte that is a signal's number: from the master over the control socket, or from a
real signal by way of set_wakeup_fd. The engine reports both descriptors as readable, in its own loop, so no Python code
ever runs at a bad moment.
"""

from __future__ import annotations

import faulthandler
import importlib
import importlib.util
import os
import random
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from stoker import __version__, engines, log, stats
from stoker import build as how_built
from stoker.connection import ENDING, RETIRING, RUNNING, STOPPING, Clock, Job, Service
from stoker.errors import BootError, ConfigError

EXIT_BOOT = 3  # the application cannot be imported

_PHASES = {
    signal.SIGTERM: STOPPING,
    signal.SIGHUP: RETIRING,
    signal.SIGINT: ENDING,
    signal.SIGQUIT: ENDING,
}
_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1)
_STATES = {RUNNING: stats.READY, RETIRING: stats.RETIRING, STOPPING: stats.DRAINING, ENDING: stats.ENDING}
_SPARE = 64  # descriptors left to the application and to ourselves


class Worker(Service):
    """The service that an engine runs.

    :param row: this worker's cells in shared memory
    :param control: our end of the socket to the master; None where there is no master (tests)
    """

    def __init__(self, config: Any, listeners: list[Any], row: Any, control: socket.socket | None) -> None:
        super().__init__(config, Clock(time.monotonic()), listeners, row)
        self.control = control
        self.watch: Any = None
        self.engine: Any = None
        self._starter: Any = None
        self._label = f"{config.proc_name}: worker {row.index + 1} [{config.engine}]"
        if config.max_requests:
            self.quota = config.max_requests + random.randint(0, config.max_requests_jitter)
        self.info = engines.REGISTRY[config.engine]
        self.cap = capacity(config)

    # What the engine calls.

    def ready(self) -> None:
        self.title("ready")
        self.row.state = stats.READY
        self.tell(b"R")

    def start_job(self, job: Job, done: Callable[[], None]) -> None:
        if self._starter is None:
            self._starter = self.pool or importlib.import_module("stoker.pool").Pool(0)
        self._starter.submit(job, done)

    def requests_are(self, count: int) -> None:
        self.row.requests = count
        if 0 < self.quota <= count:
            self.quota = 0
            log.info(f"{count} requests answered: this worker asks to be replaced (--max-requests)")
            self.tell(b"Q")

    # Messages and signals.

    def tell(self, message: bytes) -> None:
        """Send a byte to the master."""
        if self.control is not None:
            try:
                self.control.send(message, socket.MSG_DONTWAIT)
            except OSError:
                pass  # it is gone; the end of the stream says so in a moment

    def attach(self) -> None:
        """Have signals and the master's bytes come in through descriptors."""
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self.signals = _SIGNALS
        for number in _SIGNALS:
            signal.signal(number, _ignore)
            signal.siginterrupt(number, False)
        faulthandler.enable()  # SIGABRT, which the master sends to a stuck worker, shows all stacks
        self.watched[reader] = lambda: self.signalled(reader)
        if self.control is not None:
            control = self.control
            control.setblocking(False)
            self.watched[control.fileno()] = lambda: self.hear(control)

    def signalled(self, reader: int) -> None:
        """Signals have come; or perhaps not, an engine that does not ask the kernel tries."""
        try:
            self.obey(os.read(reader, 64))
        except BlockingIOError:
            pass

    def hear(self, control: socket.socket) -> None:
        """The master has something to say, or is gone: then this worker drains as on SIGTERM."""
        try:
            data = control.recv(64)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.watched.pop(control.fileno(), None)
            self.engine.forget(control.fileno())
            self.end_at = min(self.end_at, time.monotonic() + self.engine.orphan_time)
            if self.phase < STOPPING:
                log.error("the master is gone: this worker drains and ends")
                for listener in self.listeners:
                    listener.refuse_new()
                self.advance(STOPPING)
            return
        self.obey(data)

    def obey(self, data: bytes) -> None:
        """Act on bytes that are signal numbers."""
        for number in data:
            if number == signal.SIGUSR1:
                log.reopen()
            if number in _PHASES:
                self.advance(_PHASES[signal.Signals(number)])
            else:
                self.engine.signalled(number)

    def advance(self, phase: int) -> None:
        """Go on to a later phase of life; an earlier one is passed over."""
        if phase <= self.phase:
            return
        self.phase = phase
        self.end_at = min(self.end_at, time.monotonic() + self.config.graceful_timeout)
        self.row.state = _STATES[phase]
        self.title(stats.STATES[_STATES[phase]])
        self.engine.changed()

    def become_child(self, row: Any, name: str, engine: Any) -> None:
        """In a process forked off for one connection: let go of what is the worker's, and count in ``row``.

        :param name: of the connection, for the process title
        :param engine: what takes the place of the worker's engine here
        """
        writer = signal.set_wakeup_fd(-1)
        if writer >= 0:
            os.close(writer)
        if self.control is not None:
            self.watched.pop(self.control.fileno(), None)
            self.control.close()
            self.control = None
        for fd in self.watched:
            os.close(fd)
        self.watched = {}
        for listener in self.listeners:
            listener.close()
        self.listeners = []
        self.row = row
        self.engine = engine
        self.quota = 0
        self._label += " " + name
        self.title(stats.STATES[_STATES[self.phase]])

    def title(self, state: str) -> None:
        """Name the process for ps(1)."""
        import setproctitle

        setproctitle.setproctitle(f"{self._label} {state}")


def require(config: Any) -> None:
    """Raise ConfigError if the engine cannot run here, or the event loop that was asked for is not installed."""
    reason = engines.unavailable(config.engine)
    if reason:
        raise ConfigError(f"engine {config.engine} cannot run here: {reason}")
    if config.loop == "uvloop" and importlib.util.find_spec("uvloop") is None:
        raise ConfigError("loop uvloop: the package 'uvloop' is not installed: pip install 'stoker[uvloop]'")


def capacity(config: Any) -> int:
    """How many connections a worker holds."""
    descriptors = max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE)
    return int(config.max_connections or min(engines.REGISTRY[config.engine].cap or descriptors, descriptors))


def introduce(config: Any) -> list[str]:
    """What the log says at the start: the engine, and how much can be under way at once."""
    engine = config.engine + (f", {config.trigger} trigger" if config.engine == "epoll" else "")
    cap = capacity(config)
    return [
        f"stoker {__version__}, {how_built.describe()}, Python {sys.version.split()[0]}",
        f"engine {engine}; {config.workers} worker{'s' * (config.workers > 1)} with up to {cap:,} connections each",
        concurrency(config, cap),
        f"limits: head {config.limit_request_head:,} bytes in {config.header_timeout:g} s, "
        f"body {config.limit_request_body:,} bytes, {config.keep_alive:g} s between requests"
        if config.tcp is None
        else f"limits: {config.write_timeout:g} s for a client to take the next byte",
    ]


def concurrency(config: Any, cap: int) -> str:
    """How many requests, or raw handlers, can be at work at once, what bounds them, and how to get more."""
    what = "requests" if config.tcp is None else "plain handlers"
    many = config.workers * cap
    if config.engine == "process":
        return f"up to {many:,} {what} at once, a process each (more: --max-connections, --workers)"
    if config.engine == "thread":
        return f"up to {many:,} {what} at once, a thread each (more: --max-connections, --workers)"
    if config.engine == "gevent" and config.patch:
        return f"up to {many:,} {what} at once, as long as they wait in what gevent has patched (more: --workers)"
    if config.tcp is not None:
        return f"up to {many:,} handlers at once: plain ones on a thread each, others as coroutines (more: --workers)"
    if config.threads:
        total = config.workers * config.threads
        return f"up to {total:,} {what} at once: {config.threads} threads in each worker (more: --threads, --workers)"
    return (
        f"{config.workers:,} request{'s' * (config.workers > 1)} at a time: the application runs inline, one in each "
        "worker (more: --threads N where it waits, --workers N where it computes)"
    )


def _ignore(number: int, frame: object) -> None:
    """A handler must be there for the wakeup descriptor to be written; the loop does the work."""


def prepare(config: Any) -> None:
    """Before anything else in a process that is to serve: gevent patches the standard library."""
    if config.engine == "gevent" and config.patch:
        from gevent import monkey

        monkey.patch_all()


def resume(config: Any) -> None:
    """After fork from a master that has prepared: gevent's hub must not share its descriptors with the master's."""
    if config.engine == "gevent" and config.patch:
        import gevent

        gevent.reinit()


def load_application(config: Any) -> Any:
    """Import what is to be served. Raises BootError, or whatever the import raises."""
    from stoker.apps import load

    for folder in reversed([*config.app_dir, os.getcwd()]):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    if config.tcp is not None:
        return load.load(config.tcp)
    application = load.load(config.app, config.factory)
    if config.interface == "auto" and load.interface_of(application) == "asgi":
        raise BootError(
            f"{config.app!r} is an ASGI application; this version serves WSGI and raw TCP (--interface wsgi to insist)"
        )
    load.require_wsgi(application, config.app)
    return application


_preloaded: list[Any] = []


def preload(config: Any) -> None:
    """``--preload``: import the application in the master, before fork."""
    prepare(config)
    _preloaded[:] = [load_application(config)]


def build(worker: Worker, application: Any) -> None:
    """Make the handler and the engine."""
    from stoker.apps import operations

    config = worker.config
    blocking = worker.info.blocking_ok and (config.engine != "gevent" or config.patch)
    if config.threads:
        worker.pool = importlib.import_module("stoker.pool").Pool(config.threads)
    operations.serve_for(worker)
    if config.tcp is not None:
        from stoker.apps import tcp
        from stoker.engines.blocking import PollIO

        worker.handler = tcp.site(worker, application, lambda: PollIO(config.write_timeout)).handler
    else:
        worker.handler = wsgi_site(worker, application, blocking).handler
    worker.engine = engines.load(config.engine)(worker)


def wsgi_site(worker: Worker, application: Any, blocking: bool) -> Any:
    """What the HTTP connections of this worker share."""
    from stoker.apps.wsgi import WSGIExchange, WSGISite
    from stoker.engines.blocking import PollIO
    from stoker.http.response import refusal

    config = worker.config
    access = log.AccessLog.from_config(config)
    site = WSGISite(worker, blocking, WSGIExchange, lambda: PollIO(config.write_timeout), access)
    site.application = application
    site.threads = worker.pool is not None or config.engine in ("thread", "gevent")
    site.processes = config.engine == "process" or config.workers != 1
    site.inline = worker.pool is None and config.engine not in ("thread", "process")
    site.root_path = config.root_path
    worker.full_answer = refusal(503, "all connections are busy", site.date.now(), site.server)
    if config.request_timeout:
        worker.watch = site.watch = importlib.import_module("stoker.watchdog").Watchdog(worker)
    return site


def run(config: Any, listeners: list[Any], row: Any, control: socket.socket) -> int:
    """The life of a worker, in the child right after fork.

    :returns: the exit status: 0 after a drain, 3 if the application cannot be imported, 1 if the engine failed
    """
    try:
        if _preloaded:
            resume(config)
        else:
            prepare(config)
        worker = Worker(config, listeners, row, control)
        worker.title("starting")
        application = _preloaded[0] if _preloaded else load_application(config)
        worker.attach()
        build(worker, application)
    except BootError as error:
        log.error(str(error))
        return EXIT_BOOT
    except BaseException:
        log.exception("the application cannot be imported")
        return EXIT_BOOT
    try:
        worker.engine.run()
    except BaseException:
        log.exception("the engine failed")
        return 1
    return 0
