"""Keys, on a real terminal, in its foreground and background; and descriptors 0, 1 and 2 when they are closed."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.supervisor.harness import ENVIRONMENT, FAKE, PATIENCE, Server, children, state_of, wait_for

SHELL = Path(__file__).parent / "shell.py"


class Session(Server):
    """A terminal, a shell on it, and the server as the shell's job."""

    def __init__(self, directory: Path, **options: object) -> None:
        self.directory = directory
        self.log_path = directory / "log"
        options = {"bind": "127.0.0.1:0", "graceful_timeout": "5", "error_logfile": self.log_path, **options}
        self.terminal, theirs = pty.openpty()
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        words = [f"{name}={value}" for name, value in options.items()]
        self.shell = subprocess.Popen(
            [sys.executable, str(SHELL), str(commands), str(answers), str(FAKE), *words],
            cwd=directory, env=ENVIRONMENT, stdin=theirs, stdout=theirs, stderr=theirs, pass_fds=(commands, answers),
        )  # fmt: skip
        for fd in (theirs, commands, answers):
            os.close(fd)
        self.pid = int(self.tell("start"))

    def tell(self, command: str) -> str:
        """Have the shell do something; return its answer."""
        os.write(self._commands, command.encode() + b"\n")
        assert select.select([self._answers], [], [], PATIENCE)[0], f"no answer to {command}"
        return os.read(self._answers, 1000).decode().strip()

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def kill(self, number: int = signal.SIGTERM) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        return int(self.tell("wait"))

    def stop(self) -> None:
        for pid in (*children(self.pid), self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.shell.kill()
        self.shell.wait(PATIENCE)
        for fd in (self.terminal, self._commands, self._answers):
            os.close(fd)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    session = Session(tmp_path, workers=2)
    yield session
    session.stop()


def test_every_key(session: Session) -> None:
    session.ready(2)
    session.wait_log("keys, each followed by Enter: q graceful stop, r reload, s statistics")
    before = termios.tcgetattr(session.terminal)
    session.ask()
    session.type("s\n")
    session.wait_log(r"2 workers, \d connections? open; since the start 1 accepted, 0 refused, 1 request, 0 errors")
    session.wait_log(r"worker [12] \(process \d+\): ready for \d s", 2)
    session.type("+\n")
    session.wait_log(r"key \+: one worker more, 3 in all")
    session.ready(3)
    session.type("-\n-\n")
    session.wait_log("key -: one worker less, 1 in all")
    wait_for(lambda: len(session.workers()) == 1, "one worker")
    session.type("r\n")
    session.wait_log("key r: reload")
    session.wait_log("every worker is new")
    session.type("\nx\n")
    session.wait_log("'x' is no key; keys, each followed by Enter")
    session.type("help\n")
    session.wait_log("INFO keys, each followed by Enter", 2)
    assert termios.tcgetattr(session.terminal) == before
    session.type("q\n")
    session.wait_log("key q: stopping")
    assert session.wait() == 0


def test_in_the_background_nothing_is_read(session: Session) -> None:
    session.ready(2)
    session.tell("bg")
    session.type("q\n")
    assert session.tell("line") == "q", "the shell gets the line"
    begun = time.monotonic()
    while time.monotonic() - begun < 1.3:  # longer than the time between two looks at the foreground
        assert state_of(session.pid) in "SR"
        time.sleep(0.05)
    assert session.ask()
    assert "key q" not in session.log()
    session.tell("fg")
    session.type("s\n")
    session.wait_log("2 workers, ")


def test_the_background_costs_no_time(session: Session) -> None:
    """What is typed for the shell and not read yet must not turn the master's loop."""
    session.ready(2)
    session.tell("bg")
    time.sleep(1.2)  # until the master has looked
    session.type("something for the shell\n")
    count = re.compile(r"^voluntary_ctxt_switches:\s+(\d+)", re.M)
    status = Path(f"/proc/{session.pid}/status")
    before = int(count.findall(status.read_text())[0])
    time.sleep(1.5)  # what is measured is this time
    assert int(count.findall(status.read_text())[0]) - before < 8


@pytest.mark.parametrize(("work", "number"), [("reader", signal.SIGTTIN), ("writer", signal.SIGTTOU)])
def test_a_signal_of_the_kernels_own_means_nothing(session: Session, work: str, number: int) -> None:
    """Another process of the job uses the terminal in the background: the kernel signals the whole process group."""
    session.ready(2)
    session.tell("tostop")
    session.tell("bg")
    workers = sorted(session.workers())
    for _ in range(3):
        assert session.tell(work) == f"stopped by {number}"
    assert state_of(session.pid) in "SR"
    assert all(state_of(pid) in "SR" for pid in workers), "the workers go on, too"
    assert sorted(session.workers()) == workers
    session.kill(signal.SIGTTIN)  # while one that somebody sends is one more, in the background too
    session.wait_log("SIGTTIN: one worker more, 3 in all")
    session.kill(signal.SIGTTOU)
    session.wait_log("SIGTTOU: one worker less, 2 in all")
    assert session.log().count("one worker") == 2


def test_the_end_of_input_is_no_stop(session: Session) -> None:
    session.ready(2)
    session.type("\x04")
    session.type("s\n")
    session.wait_log("keys")
    time.sleep(0.3)  # nothing is to happen
    assert session.ask()
    assert "since the start" not in session.log()
    assert state_of(session.pid) in "SR"


def test_ctrl_c(session: Session) -> None:
    session.ready(2)
    session.type("\x03")
    session.wait_log("SIGINT: stopping without draining")
    assert session.wait() == 0


def test_no_keys(tmp_path: Path) -> None:
    session = Session(tmp_path, keys="false")
    try:
        session.ready()
        session.type("q\n")
        session.kill(signal.SIGTTIN)
        session.wait_log("2 in all")
        assert session.ask()
        assert "key" not in session.log()
    finally:
        session.stop()


def test_a_line_that_another_process_took_does_not_hold_the_master_up(session: Session) -> None:
    """As with a debugger in the application, which reads from the same terminal."""
    session.ready(2)
    flags = os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK
    thief = os.open(os.readlink(f"/proc/{session.pid}/fd/0"), flags)
    try:
        for _ in range(20):
            session.type("h\n")
            with contextlib.suppress(BlockingIOError):
                os.read(thief, 100)
        session.kill(signal.SIGTTIN)
        session.wait_log("3 in all")
    finally:
        os.close(thief)


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_standard_descriptors(tmp_path: Path, closed: tuple[int, ...]) -> None:
    code = """if True:
        import os, sys
        for fd in eval(sys.argv[1]):
            os.close(fd)
        os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
    """
    words = ["bind=127.0.0.1:0", f"error_logfile={tmp_path}/log", "workers=2", "keys=true"]
    server = Server.__new__(Server)
    server.directory, server.log_path = tmp_path, tmp_path / "log"
    server.process = subprocess.Popen(
        [sys.executable, "-c", code, repr(closed), str(FAKE), *words], cwd=tmp_path, env=ENVIRONMENT,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    server.pid = server.process.pid
    try:
        wait_for(server.log_path.exists, "the log")
        server.ready(2)
        with server.connect():
            for pid in (server.pid, *server.workers()):
                for fd in range(3):
                    assert os.readlink(f"/proc/{pid}/fd/{fd}") == "/dev/null", (pid, fd)
        server.kill()
        assert server.wait() == 0
    finally:
        server.stop()
