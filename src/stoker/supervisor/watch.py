"""The program that watches files for --reload, in a process of its own, so that the master never imports what it needs.

    python -m stoker.supervisor.watch --dir . --include '*.py' --exclude '.*' --since 1700000000000000000

For each batch of changes it writes one line to standard output: a JSON list of paths. It ends when nobody reads its
output any more. It uses `watchfiles` where that is installed (inotify(7)), else it looks at the files twice a second.

A pattern without a slash is compared with names, one with a slash with paths relative to the watched directory. A
directory whose name or path matches --exclude is not entered, nor are `__pycache__`, `node_modules` and virtual
environments.
"""

import argparse
import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

INTERVAL = 0.5  # seconds between two looks at all files, without watchfiles
QUIET = 0.1  # a batch is complete when nothing has changed for so long ...
PATIENCE = 2.0  # ... or after this time
_NEVER = ("__pycache__", "node_modules")

State = dict[str, tuple[int, int, int]]  # path -> time of change (ns), size, inode


@dataclass(frozen=True)
class Choice:
    """Which files matter."""

    directories: tuple[str, ...]
    include: tuple[str, ...]
    exclude: tuple[str, ...]

    def enters(self, root: str, directory: str) -> bool:
        """Whether to look into this directory below `root`."""
        name = os.path.basename(directory)
        if name in _NEVER or _matches(self.exclude, root, directory):
            return False
        return not os.path.exists(os.path.join(directory, "pyvenv.cfg"))

    def takes(self, root: str, path: str) -> bool:
        """Whether a change of this file below `root` matters, as far as its own name goes."""
        return _matches(self.include, root, path) and not _matches(self.exclude, root, path)

    def reaches(self, path: str) -> bool:
        """Whether a change of this file matters: its name, and every directory on the way to it."""
        for root in self.directories:
            if path.startswith(root.rstrip("/") + "/") and self.takes(root, path):
                directory = os.path.dirname(path)
                while len(directory) > len(root) and self.enters(root, directory):
                    directory = os.path.dirname(directory)
                if len(directory) <= len(root):
                    return True
        return False


def _matches(patterns: tuple[str, ...], root: str, path: str) -> bool:
    name, relative = os.path.basename(path), os.path.relpath(path, root)
    return any(fnmatchcase(relative if "/" in pattern else name, pattern) for pattern in patterns)


def scan(choice: Choice) -> State:
    """Every file that matters, as it is now."""
    state: State = {}
    for root in choice.directories:
        for directory, below, names in os.walk(root):
            below[:] = [one for one in below if choice.enters(root, os.path.join(directory, one))]
            for name in names:
                path = os.path.join(directory, name)
                if choice.takes(root, path):
                    try:
                        found = os.stat(path)
                    except OSError:
                        continue  # gone since the directory was read
                    state[path] = (found.st_mtime_ns, found.st_size, found.st_ino)
    return state


def differences(before: State, after: State) -> set[str]:
    """The paths that are new, gone or changed."""
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


def poll(choice: Choice) -> Iterator[set[str]]:
    """Look again and again: batches of changed paths; an empty one at least once a second or so."""
    state = scan(choice)
    while True:
        time.sleep(INTERVAL)
        now = scan(choice)
        changed = differences(state, now)
        until = time.monotonic() + PATIENCE
        while changed and time.monotonic() < until:
            time.sleep(QUIET)
            later = scan(choice)
            more = differences(now, later)
            now = later
            changed |= more
            if not more:
                break
        state = now
        yield changed


def notify(choice: Choice) -> Iterator[set[str]]:
    """The same by inotify(7), with watchfiles. Raises ImportError without it, OSError where the kernel refuses."""
    import watchfiles  # only here, only in this process

    for changes in watchfiles.watch(
        *choice.directories,
        watch_filter=lambda _, path: choice.reaches(path),
        step=int(QUIET * 1000),
        debounce=int(PATIENCE * 1000),
        rust_timeout=1000,
        yield_on_timeout=True,
        raise_interrupt=False,
    ):
        yield {path for _, path in changes}


def batches(choice: Choice) -> Iterator[set[str]]:
    """`notify` where it works, else `poll`."""
    try:
        yield from notify(choice)
    except ImportError:
        pass
    except (OSError, RuntimeError) as error:  # fs.inotify.max_user_watches, or what watchfiles makes of it
        sys.stderr.write(f"stoker: files cannot be watched by inotify ({error}); looking at each of them instead\n")
    yield from poll(choice)


def since(choice: Choice, time_ns: int) -> set[str]:
    """The files that have changed since this time: what was edited before anybody watched."""
    found = set()
    for path in scan(choice):
        with contextlib.suppress(OSError):
            if os.stat(path).st_ctime_ns >= time_ns:
                found.add(path)
    return found


def _unread(fd: int) -> bool:
    """Whether nobody is left to read what is written to this pipe."""
    poller = select.poll()
    poller.register(fd, 0)
    return bool(poller.poll(0))


def main(arguments: list[str] | None = None) -> int:
    """Watch until nobody reads; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m stoker.supervisor.watch", description="Watch files.")
    parser.add_argument("--dir", action="append", required=True, help="a directory to watch, with all below it")
    parser.add_argument("--include", action="append", required=True, help="files that matter")
    parser.add_argument("--exclude", action="append", default=[], help="files and directories that do not")
    parser.add_argument("--since", type=int, help="what has changed since then counts, too (time.time_ns())")
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGQUIT):  # the terminal's keys reach the whole job; the master ends us
        signal.signal(number, signal.SIG_IGN)
    directories = tuple(os.path.realpath(one) for one in options.dir)
    choice = Choice(directories, tuple(options.include), tuple(options.exclude))
    early = options.since
    for batch in batches(choice):
        if early is not None:  # files are watched from here on
            batch.update(since(choice, early))
            early = None
        if _unread(sys.stdout.fileno()):
            return 0
        if batch:
            try:
                os.write(sys.stdout.fileno(), json.dumps(sorted(batch)).encode() + b"\n")
            except BrokenPipeError:
                return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
