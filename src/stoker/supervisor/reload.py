"""The master's side of --reload: it starts `supervisor.watch` and reads what has changed."""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from stoker.config import Config

_PACKAGES = str(Path(__file__).parents[2])  # where `stoker` was imported from
_DEFAULTED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)


class Watcher:
    """A process that watches files.

    :ivar fd: what to poll for reading
    :ivar pid: its process id; who reaps it should call `close`
    :ivar ended: it has closed its end: there is nothing to read any more
    """

    def __init__(self, config: Config, mask: Iterable[int]) -> None:
        """Start it. Raises OSError when there is no process or no descriptor left."""
        self.fd, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.fd, False)
        self.born = time.monotonic()
        self.ended = False
        self._data = b""
        command = [sys.executable, "-m", "stoker.supervisor.watch", f"--since={time.time_ns()}"]
        for flag, values in (
            ("--dir", config.reload_dir or (os.getcwd(),)),
            ("--include", config.reload_include),
            ("--exclude", config.reload_exclude),
        ):
            command += [f"{flag}={value}" for value in values]
        # Safe path: with -m the working directory comes first, where the application may have a stoker.py of its own.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([_PACKAGES, *_paths()]), "PYTHONSAFEPATH": "1"}
        try:
            self.pid = os.posix_spawn(
                sys.executable,
                command,
                environment,
                file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)],
                setsigmask=mask,
                setsigdef=_DEFAULTED,
            )
        except OSError:
            os.close(self.fd)
            raise
        finally:
            os.close(writer)

    def read(self) -> list[str]:
        """The paths that have changed since the last call."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.fd, 1 << 16):
                self._data += data
            self.ended = True
        *lines, self._data = self._data.split(b"\n")
        return [path for line in lines for path in json.loads(line)]

    def end(self) -> None:
        """Tell it to end; whoever waits for children will find it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Close our end of the pipe. It ends by itself when it sees that."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _paths() -> list[str]:
    value = os.environ.get("PYTHONPATH", "")
    return value.split(os.pathsep) if value else []


def describe(paths: list[str]) -> str:
    """What has changed, for one line in the log: the first path as seen from here, and how many more."""
    first = os.path.relpath(paths[0])
    shown = paths[0] if first.startswith("..") else first
    return shown if len(paths) == 1 else f"{shown} and {len(paths) - 1} more"
