"""The parts of the supervisor by themselves: signals, pace, loop, and a crew that cannot fork."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from tests.supervisor.harness import ENVIRONMENT, alive, wait_for

from stoker import log
from stoker.config import Config
from stoker.errors import BootError
from stoker.net.listeners import Listener
from stoker.stats import Row
from stoker.supervisor import crew as crew_module
from stoker.supervisor import signals as signals_module
from stoker.supervisor.crew import LAST_WORDS, STOPPED, Crew
from stoker.supervisor.loop import Loop
from stoker.supervisor.process import Pace, how
from stoker.supervisor.signals import Signals

# Pace


@pytest.mark.parametrize(("good", "last"), [(False, Pace.LAST), (True, Pace.LAST_OF_GOOD)])
def test_a_process_that_keeps_ending_is_started_ever_more_slowly(good: bool, last: float) -> None:
    pace = Pace()
    delays = [pace.delay(0.1, good) for _ in range(9)]
    assert delays == sorted(delays)
    assert delays[0] == pytest.approx(0.9)
    assert delays[-1] == pytest.approx(last - 0.1)


def test_good_health_makes_good() -> None:
    pace = Pace()
    for _ in range(4):
        pace.delay(0.1, good=False)
    assert pace.delay(3600.0, good=True) == 0
    assert pace.delay(0.1, good=False) == pytest.approx(0.9)


def test_one_that_lives_for_a_while_is_replaced_at_once() -> None:
    pace = Pace()
    assert [pace.delay(2.0, good=True) for _ in range(10)] == [0.0] * 10


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "ended with status 0"),
        (3 << 8, "ended with status 3"),
        (9, "was killed by SIGKILL"),
        (40, "was killed by signal 40"),
    ],
)
def test_how_a_process_ended(status: int, words: str) -> None:
    assert how(status) == words


# Loop


def test_the_loop_rests_until_its_time() -> None:
    loop = Loop()
    begun = time.monotonic()
    loop.turn(0.0301)
    assert time.monotonic() - begun >= 0.0301
    loop.turn(-1)


def test_a_callback_may_remove_another() -> None:
    loop = Loop()
    pairs = [socket.socketpair() for _ in range(2)]
    called: list[int] = []

    def call(index: int) -> None:
        called.append(index)
        loop.remove(pairs[1 - index][0].fileno())

    for index, (ours, theirs) in enumerate(pairs):
        theirs.send(b"x")
        loop.add(ours.fileno(), lambda index=index: call(index))
    loop.turn(1)
    assert len(called) == 1
    for pair in pairs:
        for end in pair:
            end.close()


# Signals


def send(number: int) -> None:
    """To this thread: the test runner may have others, which do not block what this one does."""
    signal.pthread_kill(threading.get_ident(), number)


@contextlib.contextmanager
def signals() -> Iterator[Signals]:
    taken = Signals()
    try:
        yield taken
    finally:
        taken.close()


@pytest.fixture(params=["signalfd", "no ctypes"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "no ctypes":
        monkeypatch.setitem(sys.modules, "ctypes", None)
    return str(request.param)


def test_signals_come_in_through_descriptors(either: str) -> None:
    with signals() as taken:
        assert (taken.bell >= 0) == (either == "signalfd")
        assert taken.take() == []
        for number in (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGTERM):
            loop = Loop()
            for fd in taken.descriptors():
                loop.add(fd, lambda: None)
            send(number)
            begun = time.monotonic()
            loop.turn(1 if taken.bell >= 0 or number not in (signal.SIGTTIN, signal.SIGTTOU) else 0)
            assert time.monotonic() - begun < 0.5, "the loop was not woken"
            assert taken.take() == [number]
            assert taken.take() == []


def test_a_thread_that_does_not_block_it_takes_a_signal_too() -> None:
    """A program with threads calls serve(): SIGTTIN must neither stop it nor get lost."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    with signals() as taken:
        assert thread.ident is not None
        signal.pthread_kill(thread.ident, signal.SIGTTIN)
        assert wait_for(taken.take, "the signal") == [signal.SIGTTIN]
    end.set()
    thread.join()


def test_many_at_once_are_all_taken() -> None:
    with signals() as taken:
        for _ in range(50):
            send(signal.SIGUSR1)
            send(signal.SIGHUP)
        numbers = taken.take()
        assert numbers.count(signal.SIGUSR1) == numbers.count(signal.SIGHUP) == 50


def test_what_was_before_comes_back() -> None:
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    open_before = set(os.listdir("/proc/self/fd"))
    with signals():
        assert signal.SIGTTIN in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        send(signal.SIGTTIN)  # not taken: it must not stop the process later
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
    assert set(os.listdir("/proc/self/fd")) == open_before


def test_held_signals_come_afterwards() -> None:
    with signals() as taken:
        with taken.held():
            send(signal.SIGHUP)
            assert taken.take() == []
        assert taken.take() == [signal.SIGHUP]


def test_a_stop_interrupts_foreign_code_and_is_taken_as_well() -> None:
    with signals() as taken:
        with taken.interruptible(), pytest.raises(signals_module.Interrupted, match="SIGTERM"):
            send(signal.SIGTERM)
        assert taken.take() == [signal.SIGTERM]
        send(signal.SIGTERM)
        assert taken.take() == [signal.SIGTERM]


def test_a_stop_that_came_a_moment_too_early_interrupts_as_well() -> None:
    with signals() as taken:
        send(signal.SIGHUP)
        send(signal.SIGINT)
        with pytest.raises(signals_module.Interrupted, match="SIGINT"), taken.interruptible():
            pytest.fail("the foreign code runs")
        assert taken.take() == [signal.SIGHUP, signal.SIGINT]


def test_not_in_another_thread() -> None:
    caught: list[BaseException] = []

    def start() -> None:
        try:
            Signals()
        except BootError as error:
            caught.append(error)

    before = os.listdir("/proc/self/fd")
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "the main thread" in str(caught[0])
    assert os.listdir("/proc/self/fd") == before


# A crew


class Clock:
    """A crew that is driven by hand."""

    def __init__(self, taken: Signals, **options: object) -> None:
        self.loop = Loop()
        self.crew = Crew(Config(**options), life, loop=self.loop, signals=taken, identity=None, leave=lambda: None)
        self.crew.open([[]])

    def turn(self) -> None:
        self.crew.turn(time.monotonic())
        self.loop.turn(0.01)
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                assert self.crew.reap(*found)

    def until(self, condition: object, what: str) -> None:
        assert callable(condition)
        wait_for(lambda: self.turn() or condition(), what)


def life(config: Config, listeners: list[Listener], row: Row, control: socket.socket) -> int:
    """A worker that is ready, turns for a moment, and is stuck from then on."""
    row.turn = time.monotonic()
    control.send(b"R")
    control.recv(1)
    return 0


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged. And a child ends without what is registered with atexit: that is the test runner's."""
    lines: list[str] = []
    monkeypatch.setattr(crew_module, "_exit", os._exit)
    for level in ("info", "warning", "error"):
        monkeypatch.setattr(log, level, lines.append)
    return lines


@pytest.fixture
def clock(said: list[str]) -> Iterator[Clock]:
    with signals() as taken:
        clock = Clock(taken, worker_timeout=2.5)
        yield clock
        clock.crew.stop(signal.SIGKILL)
        clock.until(lambda: not clock.crew.workers, "the end")


def ready(clock: Clock) -> int:
    clock.until(lambda: clock.crew.slots[0].worker and clock.crew.slots[0].worker.ready, "a worker")
    worker = clock.crew.slots[0].worker
    assert worker is not None
    return worker.pid


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
def test_a_fork_that_fails_is_tried_again(
    clock: Clock, said: list[str], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork, failures = os.fork, iter([number, number])

    def failing() -> int:
        for one in failures:
            raise OSError(one, os.strerror(one))
        return fork()

    monkeypatch.setattr(crew_module, "fork", failing)
    before = os.listdir("/proc/self/fd")
    clock.turn()
    assert clock.crew.workers == {}
    assert os.listdir("/proc/self/fd") == before
    assert said == [f"a worker cannot be started: {os.strerror(number)}; next try in 1 s"]
    assert 0.5 < clock.crew.next_time(time.monotonic()) - time.monotonic() <= 1
    ready(clock)
    assert len(said) == 3


def test_out_of_descriptors(clock: Clock, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:

        def refuse() -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        patch.setattr(crew_module, "socketpair", refuse)
        clock.turn()
    assert said == ["a worker cannot be started: Too many open files; next try in 1 s"]
    ready(clock)


def test_a_stuck_worker_is_told_to_show_its_stacks_then_replaced(clock: Clock, said: list[str]) -> None:
    pid = ready(clock)
    os.kill(pid, signal.SIGSTOP)  # it cannot even take SIGABRT
    clock.until(lambda: pid not in clock.crew.workers, "it is killed")
    assert any("is stuck: its loop has not turned for 2 s" in line for line in said) or any(
        "is stuck: its loop has not turned for 3 s" in line for line in said
    )
    assert ready(clock) != pid
    assert not alive(pid)
    assert LAST_WORDS < 5


def test_when_the_master_slept_the_workers_did_too(clock: Clock, said: list[str]) -> None:
    """After SIGSTOP of the whole job, or on a machine that was suspended, an old turn proves nothing."""
    pid = ready(clock)
    now = time.monotonic()
    clock.crew.turn(now + STOPPED + 100)
    assert pid in clock.crew.workers
    assert not any("stuck" in line for line in said)


def test_a_busy_worker_is_not_stuck(clock: Clock, said: list[str]) -> None:
    pid = ready(clock)
    worker = clock.crew.workers[pid]
    worker.row.busy = 1
    now = time.monotonic()
    for second in range(20):
        clock.crew.turn(now + second)
    assert pid in clock.crew.workers
    assert not any("stuck" in line for line in said)


def test_worker_timeout_may_be_off(said: list[str]) -> None:
    with signals() as taken:
        clock = Clock(taken, worker_timeout=0)
        pid = ready(clock)
        now = time.monotonic()
        for second in range(0, 100, 4):
            clock.crew.turn(now + second)
        assert not any("stuck" in line for line in said)
        os.kill(pid, signal.SIGKILL)
        clock.crew.stop(signal.SIGKILL)
        clock.until(lambda: not clock.crew.workers, "the end")


def test_ready_and_dead_in_one_turn_replaces_nobody(clock: Clock, said: list[str]) -> None:
    """A successor that says R and dies before the master hears it must not push the good worker out."""
    pid = ready(clock)
    clock.crew.reload(Config(), signal.SIGHUP)
    clock.crew.turn(time.monotonic())
    successor = clock.crew.slots[0].successor
    assert successor is not None
    wait_for(lambda: successor.row.turn > 0, "the successor runs")
    time.sleep(0.05)  # its R is on the way
    os.kill(successor.pid, signal.SIGKILL)
    clock.crew.reap(*os.waitpid(successor.pid, 0))
    worker = clock.crew.slots[0].worker
    assert worker is not None
    assert worker.pid == pid
    assert not worker.leaving


def test_a_childs_exit_runs_what_was_registered() -> None:
    code = """if True:
        import atexit
        from stoker.supervisor.crew import _exit
        atexit.register(print, "registered")
        print("printed", end=" ")
        _exit(7)
    """
    result = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (7, "printed registered\n")


def test_there_are_rows_for_all() -> None:
    assert crew_module.ROWS >= 2 * 4096, "as many workers as --workers allows, each with a successor"
