"""The master: it opens what is listened on, has a crew of workers, and does what signals, keys and files ask for.

It never serves a request and never runs code of the application (but for --preload), so there is little that can go
wrong with it. All that happens to it comes in through descriptors: signals, what the workers say, keys, changed files;
each turn of its loop then makes the workers that there are a little more like those that there should be.

A worker says R (ready) and Q (replace me) over its control socket, and is told the numbers of signals. When the master
dies, however it dies, the kernel closes its end, and the worker drains.
"""

import contextlib
import dataclasses
import gc
import os
import signal
import time
from collections.abc import Callable

from stoker import log
from stoker.config import Config, envfile
from stoker.errors import StokerError
from stoker.net.descriptors import guard, raise_limit
from stoker.net.listeners import Listener, hand_over, open_listeners
from stoker.net.unpatched import waitpid
from stoker.supervisor import keys, reexec, report, start
from stoker.supervisor.crew import Crew, RunWorker
from stoker.supervisor.loop import Loop
from stoker.supervisor.pidfile import PidFile
from stoker.supervisor.privileges import Identity, identity
from stoker.supervisor.process import Pace, how
from stoker.supervisor.reload import Watcher, describe
from stoker.supervisor.signals import LOOK, Interrupted, Signals
from stoker.supervisor.title import set_title

BOOT_FAILED = 3  # the exit status when the application cannot be imported
TICK = 1.0  # seconds: how long the master sleeps at most
RUNNING, DRAINING, QUITTING = range(3)

# What a reload cannot change, since it belongs to the master, its sockets or its files.
FIXED = (
    "backlog", "bind", "chdir", "group", "keys", "pid", "preload", "proc_name", "reload", "reload_dir",
    "reload_exclude", "reload_include", "reuse_port", "socket_mode", "umask", "user",
)  # fmt: skip
LOGGING = ("access_log", "access_logfile", "access_logformat", "color", "error_logfile", "json", "log_level")


class Master:
    """The process that supervises.

    :param run_worker: the life of a worker, called in the child: `worker.run`
    :param preload: imports the application in this process for --preload: `worker.preload`
    :param introduce: lines for the log that say what is served and how: `worker.introduce`
    :param reload_config: reads the configuration again; raises StokerError if it is wrong. None: it never changes
    """

    def __init__(
        self,
        config: Config,
        run_worker: RunWorker,
        preload: Callable[[Config], None] | None = None,
        introduce: Callable[[Config], list[str]] | None = None,
        reload_config: Callable[[], Config] | None = None,
    ) -> None:
        self.config = config
        self.phase = RUNNING
        self.status = 0
        self.loop = Loop()
        self._run_worker = run_worker
        self._preload = preload
        self._introduce = introduce
        self._reload_config = reload_config
        self._pid_file: PidFile | None = None
        self._keys: keys.Keys | None = None
        self._watcher: Watcher | None = None
        self._watcher_due = 0.0
        self._watcher_pace = Pace()
        self._trial: int | None = None
        self._listeners: list[list[Listener]] = []

    def run(self) -> int:
        """Serve until told to stop; return the exit status.

        :raises StokerError: when it cannot begin: an address in use, a pid file of a running server, a wrong option
        """
        guard()
        raise_limit()
        if reexec.on_trial(os.environ):
            return self._try()
        state = reexec.take(os.environ)
        with contextlib.ExitStack() as at_end:
            self._settle()
            who = identity(self.config)
            if self.config.env_file is not None:
                envfile.read(self.config.env_file)
            self.signals = Signals()
            at_end.callback(self.signals.close)
            self.crew = Crew(
                self.config, self._run_worker, loop=self.loop, signals=self.signals, identity=who, leave=self._leave
            )
            at_end.callback(self._close)
            self._open(state, who)
            self._start(state, who)
            while self.phase == RUNNING or self.crew.workers:
                self._turn()
        log.info("stopped")
        return self.status

    # The start.

    def _settle(self) -> None:
        """What the whole process tree inherits."""
        set_title(f"{self.config.proc_name}: master [{_name(self.config)}]")
        if self.config.chdir is not None:
            with start.there():
                directory = os.path.abspath(self.config.chdir)
            os.chdir(directory)
        if self.config.umask is not None:
            os.umask(self.config.umask)

    def _open(self, state: reexec.State | None, who: Identity | None) -> None:
        """The sockets and the files."""
        self._listeners = open_listeners(self.config, state.listeners if state is not None else ())
        if who is not None:
            log.own(who.uid, who.gid)
            for listener in self._each_listener():
                listener.own(who.uid, who.gid)
        if state is not None and state.pid_file is not None:
            self._pid_file = PidFile(*state.pid_file)
            os.set_inheritable(self._pid_file.fd, False)
        elif self.config.pid is not None:
            self._pid_file = PidFile.write(self.config.pid)

    def _start(self, state: reexec.State | None, who: Identity | None) -> None:
        if state is not None:
            self.crew.inherit(state.wanted, state.configured)
        self.crew.open(self._listeners)
        for one in state.workers if state is not None else ():
            self.crew.adopt(one)
        log.info(f"the master is process {os.getpid()}")
        for line in self._introduce(self.config) if self._introduce is not None else ():
            log.info(line)
        for address in dict.fromkeys(listener.address for listener in self._each_listener()):
            log.info(f"listening on {address}")
        for fd in self.signals.descriptors():
            self.loop.add(fd, lambda: None)  # they are taken in every turn
        if self.config.preload:
            good = self._import(who)
            for number in self.signals.take():
                self._obey(number)
            if state is None and not good and self.phase == RUNNING:
                self.phase, self.status = QUITTING, BOOT_FAILED
                return
            if state is not None and good:
                self.crew.replace_adopted()
        if self.config.keys:
            self._keys = keys.Keys()
            if self._keys.fd >= 0:
                log.info(keys.HELP)

    def _import(self, who: Identity | None) -> bool:
        """Import the application here. A signal that stops the server breaks it off, and is obeyed afterwards."""
        if who is not None:
            # The application's code must not run as root, so from here on the master is nobody special either.
            who.become()
            self.crew.identity = None
        try:
            with self.signals.interruptible():
                self._load_environment()
                if self._preload is not None:
                    self._preload(self.config)
        except Interrupted as signal_:
            log.info(f"{signal_}: the import of the application is broken off")
            return False
        except StokerError as error:
            log.error(str(error))
            return False
        except Exception:
            log.exception("the application cannot be imported")
            return False
        gc.collect()
        gc.freeze()  # the collector would write to every object, and so copy the pages that all workers share
        return True

    def _load_environment(self) -> None:
        if self.config.env_file is not None:
            envfile.load(self.config.env_file)

    def _try(self) -> int:
        """On trial: import the application as a new master would, and say whether that works."""
        self._settle()
        who = identity(self.config)
        try:
            if who is not None:
                who.become()
            self._load_environment()
            if self._preload is not None:
                self._preload(self.config)
        except StokerError as error:
            log.error(str(error))
            return BOOT_FAILED
        except Exception:
            log.exception("the application cannot be imported")
            return BOOT_FAILED
        return 0

    # The loop.

    def _turn(self) -> None:
        now = time.monotonic()
        self.crew.turn(now)
        tick = TICK if self.signals.bell >= 0 else LOOK
        self._look_at_keys()
        if self.config.reload and self._watcher is None and self.phase == RUNNING and now >= self._watcher_due:
            self._watch_files()
        self.loop.turn(min(tick, self.crew.next_time(now) - now))
        for number in self.signals.take():
            self._obey(number)
        self._reap()
        if self.crew.status is not None and self.phase == RUNNING:
            self.status = self.crew.status
            self._quit("the start has failed")

    def _obey(self, number: int) -> None:
        name = signal.Signals(number).name
        if number == signal.SIGTERM:
            self._drain(name)
        elif number in (signal.SIGINT, signal.SIGQUIT):
            self._quit(name)
        elif number == signal.SIGHUP:
            self._reload(name, signal.SIGHUP)
        elif number == signal.SIGUSR1:
            log.reopen()
            for worker in self.crew.workers.values():
                worker.tell(signal.SIGUSR1)
            log.info(f"{name}: the log files are open again")
        elif number == signal.SIGUSR2:
            log.warning(f"{name} has no meaning here; to load a new version of everything: HUP with --preload")
        elif number == signal.SIGTTIN:
            self._more(name)
        elif number == signal.SIGTTOU:
            self._less(name)

    def _reap(self) -> None:
        """Collect every child that has ended; orphans too, should we be process 1 of a container."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if self.crew.reap(pid, status):
                    continue
                if self._watcher is not None and pid == self._watcher.pid:
                    self._watcher_ended(self._watcher, status)
                elif pid == self._trial:
                    self._trial = None
                    self._tried(status)

    # What can be asked for.

    def _drain(self, why: str) -> None:
        """Stop gracefully: nobody new, everybody who is there or queued is served."""
        if self.phase != RUNNING:
            return
        self.phase = DRAINING
        log.info(f"{why}: stopping; what is under way has {self.crew.config.graceful_timeout:g} s")
        for listener in self._each_listener():
            listener.refuse_new()
        self.crew.stop(signal.SIGTERM)
        self._close_listeners()
        self._end_trial()

    def _quit(self, why: str) -> None:
        """Stop now; asked a second time, at once."""
        if self.phase == QUITTING:
            log.warning(f"{why} again: every worker is killed")
            self.crew.stop(signal.SIGKILL)
            return
        self.phase = QUITTING
        log.info(f"{why}: stopping without draining")
        self.crew.stop(signal.SIGINT)
        self._close_listeners()
        self._end_trial()

    def _close_listeners(self) -> None:
        """Close our copies of the sockets at once. The workers have theirs, and close them when the queue is empty.

        A copy that we kept would make nothing safer: nobody would accept from it. It would only make new clients
        wait, where they are refused as soon as the last worker has closed its own.
        """
        for listener in self._each_listener():
            listener.remove()
            listener.close()

    def _reload(self, why: str, farewell: int) -> None:
        """Replace the workers, by ones of a configuration that is read again."""
        if self.phase != RUNNING:
            return
        if self.config.preload:
            self._try_again(why)
            return
        try:
            config = self._read_config()
        except StokerError as error:
            log.error(f"{why}: no reload: {error}")
        except Exception:
            log.exception(f"{why}: no reload: the configuration cannot be read")
        else:
            log.info(f"{why}: reload")
            self.crew.reload(config, farewell)

    def _read_config(self) -> Config:
        """The configuration as it is now, but for what cannot change without a restart. Raises StokerError, OSError."""
        if self._reload_config is None:
            return self.crew.config
        with start.there():
            config = self._reload_config()
        changed = [name for name in FIXED if getattr(config, name) != getattr(self.config, name)]
        if changed:
            names = ", ".join("--" + name.replace("_", "-") for name in changed)
            log.warning(f"reload: a new value of {names} has no effect before a restart")
            config = dataclasses.replace(config, **{name: getattr(self.config, name) for name in changed})
        if config.env_file is not None:
            envfile.read(config.env_file)
        if any(getattr(config, name) != getattr(self.crew.config, name) for name in LOGGING):
            with start.there():
                log.setup(config)
            if self.crew.identity is not None:
                log.own(self.crew.identity.uid, self.crew.identity.gid)
        return config

    def _more(self, why: str) -> None:
        if self.phase == RUNNING and self.crew.more():
            log.info(f"{why}: one worker more, {self.crew.wanted} in all")

    def _less(self, why: str) -> None:
        if self.phase == RUNNING and self.crew.less():
            log.info(f"{why}: one worker less, {self.crew.wanted} in all")

    # Keys.

    def _look_at_keys(self) -> None:
        """Listen to the terminal while we are in its foreground, and only then."""
        if self._keys is None:
            return
        fd = self._keys.fd
        foreground = self._keys.foreground() and self.phase == RUNNING
        if foreground and fd not in self.loop:
            self.loop.add(fd, self._press)
        elif not foreground:
            self.loop.remove(fd)

    def _press(self) -> None:
        assert self._keys is not None
        fd = self._keys.fd
        pressed = self._keys.read()
        if self._keys.fd < 0:
            self.loop.remove(fd)
        for key in pressed:
            if key == "q":
                self._drain("key q")
            elif key == "r":
                self._reload("key r", signal.SIGHUP)
            elif key == "s":
                for line in report.lines(list(self.crew.workers.values()), self.crew.totals):
                    log.info(line)
            elif key == "+":
                self._more("key +")
            elif key == "-":
                self._less("key -")
            elif key:
                log.info(keys.HELP if key == "h" else f"{key!r} is no key; {keys.HELP}")

    # Changed files.

    def _watch_files(self) -> None:
        try:
            watcher = self._watcher = Watcher(self.config, self.signals.mask)
        except OSError as error:
            self._watcher_due = time.monotonic() + self._watcher_pace.delay(0.0, good=False)
            log.error(f"--reload: the files cannot be watched now: {error.strerror}")
            return
        self.loop.add(watcher.fd, lambda: self._changed(watcher))

    def _changed(self, watcher: Watcher) -> None:
        paths = watcher.read()
        if watcher.ended:
            self.loop.remove(watcher.fd)
        if paths:
            self._reload(f"{describe(paths)} changed", signal.SIGTERM)

    def _watcher_ended(self, watcher: Watcher, status: int) -> None:
        self.loop.remove(watcher.fd)
        watcher.close()
        self._watcher = None
        delay = self._watcher_pace.delay(time.monotonic() - watcher.born, good=False)
        self._watcher_due = time.monotonic() + delay
        log.error(f"--reload: the process that watches the files {how(status)}; another is started in {delay:.1f} s")

    # A reload with --preload: the master starts over.

    def _try_again(self, why: str) -> None:
        self._end_trial()
        try:
            self._trial = reexec.start_trial(self.signals.mask)
        except OSError as error:
            log.error(f"{why}: no reload: {error.strerror}")
            return
        log.info(f"{why}: reload; process {self._trial} tries whether the application can be imported")

    def _end_trial(self) -> None:
        if self._trial is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._trial, signal.SIGKILL)
            self._trial = None

    def _tried(self, status: int) -> None:
        """The trial is over."""
        if self.phase != RUNNING:
            return
        if status != 0:
            log.error(f"reload given up: the trial {how(status)}; the workers of before go on serving")
            return
        log.info("reload: the application can be imported; the master starts over")
        pid_file = (self._pid_file.path, self._pid_file.fd) if self._pid_file is not None else None
        with self.signals.held():
            state = reexec.State(
                hand_over(slot.listeners for slot in self.crew.slots),
                self.crew.hand_over(),
                pid_file,
                self.crew.wanted,
                self.config.workers,
            )
            try:
                reexec.replace(state)
            except OSError as error:
                log.error(f"reload given up: the master cannot start over: {error.strerror}")

    # The end, of the master and of its copy in a child.

    def _each_listener(self) -> list[Listener]:
        sets = [*self._listeners, *(slot.listeners for slot in self.crew.slots)]
        return list({id(listener): listener for listeners in sets for listener in listeners}.values())

    def _leave(self) -> None:
        """In a child: close what is the master's alone. Another slot's listeners are the crew's business."""
        if self._keys is not None:
            self._keys.close()
        if self._watcher is not None:
            self._watcher.close()
        if self._pid_file is not None:
            self._pid_file.close()

    def _close(self) -> None:
        self._close_listeners()
        if self._watcher is not None:
            self._watcher.end()
            self._watcher.close()
            with contextlib.suppress(ChildProcessError):
                waitpid(self._watcher.pid, 0)
        if self._keys is not None:
            self._keys.close()
        if self._pid_file is not None:
            self._pid_file.remove()


def _name(config: Config) -> str:
    """What is served, in short."""
    served = config.app if config.tcp is None else config.tcp
    return served if isinstance(served, str) else getattr(served, "__name__", type(served).__name__)
