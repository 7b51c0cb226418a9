"""How the master replaces itself: HUP under --preload.

What is imported stays imported, so a master that has the application in memory cannot fetch it anew. It starts over:
first a *trial*, a child that runs the same command line as far as the import of the application. If that works, the
master calls execve(2) on itself. Its process id stays the same, and with it the pid file, the terminal's job and what
a service manager or a container believes; its children stay its children, and what it listens on passes on as open
descriptors, with all who are queued. The new program adopts the old workers, and retires them one by one when new
ones are ready.

All signals are blocked meanwhile (sigprocmask(2) survives execve): one that arrives is taken by the new program.
The counters of the old workers are lost, for shared memory without a name does not survive.
"""

import json
import os
import signal
import sys
from collections.abc import Iterable, MutableMapping
from dataclasses import asdict, dataclass

from stoker.net.listeners import Handed
from stoker.supervisor import start

TRIAL = "_STOKER_TRIAL"  # not STOKER_...: those are options
STATE = "_STOKER_STATE"


@dataclass(frozen=True)
class Adopted:
    """An old worker. `control` is a descriptor; `kill_at` is 0 for one that is to stay, else as in `process.Worker`."""

    pid: int
    number: int
    slot: int
    born: float
    control: int
    kill_at: float


@dataclass(frozen=True)
class State:
    """What passes from the old program to the new one."""

    listeners: list[Handed]
    workers: list[Adopted]
    pid_file: tuple[str, int] | None
    wanted: int  # how many workers there should be, after TTIN and TTOU
    configured: int  # and what --workers said


def take(environ: MutableMapping[str, str]) -> State | None:
    """The state that the program before us left, whose place `environ` names; None: there was none."""
    fd = environ.pop(STATE, None)
    start.ENVIRONMENT.pop(STATE, None)
    if fd is None:
        return None
    with os.fdopen(int(fd), "rb") as file:
        file.seek(0)
        data = json.load(file)
    return State(
        [Handed(**{**one, "inode": one["inode"] and tuple(one["inode"])}) for one in data["listeners"]],
        [Adopted(**one) for one in data["workers"]],
        tuple(data["pid_file"]) if data["pid_file"] else None,
        data["wanted"],
        data["configured"],
    )


def on_trial(environ: MutableMapping[str, str]) -> bool:
    """Whether this process only tries whether the application can be imported."""
    start.ENVIRONMENT.pop(TRIAL, None)
    return environ.pop(TRIAL, None) is not None


def _command() -> list[str]:
    return [sys.executable, *sys.orig_argv[1:]]


def _environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in start.ENVIRONMENT.items() if not name.startswith("LISTEN_")}
    return {**kept, **more}


def start_trial(mask: Iterable[int]) -> int:
    """Start the trial; return its process id. Exit status 0: the application can be imported. Raises OSError."""
    with start.there():  # posix_spawn(3) has no portable way to choose a directory for the child
        return os.posix_spawn(
            sys.executable,
            _command(),
            _environment(**{TRIAL: "1"}),
            setsigmask=mask,
            setsigdef=[signal.SIGTTIN, signal.SIGTTOU],
        )


def replace(state: State) -> None:
    """Become the new program. Returns never, or raises OSError; then everything is as before.

    Every signal must be blocked. The descriptors that are in `state` are made to survive.
    """
    descriptors = [one.fd for one in state.listeners] + [one.control for one in state.workers]
    if state.pid_file is not None:
        descriptors.append(state.pid_file[1])
    memory = os.memfd_create("stoker-state")  # a variable could not hold it: execve(2) allows 128 KiB for each
    descriptors.append(memory)
    try:
        os.write(memory, json.dumps(asdict(state)).encode())
        for fd in descriptors:
            os.set_inheritable(fd, True)
        with start.there():
            os.execve(sys.executable, _command(), _environment(**{STATE: str(memory)}))
    except OSError:
        for fd in descriptors:
            os.set_inheritable(fd, False)
        os.close(memory)
        raise
