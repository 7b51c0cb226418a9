"""What is io_uring's alone: the ring, who may come in, what is read ahead, and what is said where it cannot run."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import faulthandler
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.engines.handlers import DATA, Job, call, echo, exactly, reset
from tests.engines.harness import URING, running, until

from stoker import build, engines
from stoker.connection import DONE, RECV, SLEEP
from stoker.net import probe

compiled = pytest.mark.skipif(not URING, reason="io_uring cannot run here: the tests of the refusal say why")
IN = 1


# Where it cannot run.

# A filter for seccomp(2) that answers io_uring_setup with an errno: load the call's number, compare, return.
REFUSE = """
import ctypes, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
code = b"".join(struct.pack("HBBI", *line) for line in (
    (0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x00050000 | int(sys.argv[1])), (0x06, 0, 0, 0x7FFF0000)))
buffer = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack("HP", 4, ctypes.addressof(buffer)))
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, program, 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
"""


def refused(number: int, code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code where a seccomp filter refuses io_uring_setup with this errno."""
    return subprocess.run(
        [sys.executable, "-c", REFUSE + code, str(number)],
        env={**os.environ, "PYTHONPATH": str(build.HERE.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@compiled
@pytest.mark.parametrize(("number", "why"), [(errno.EPERM, "seccomp"), (errno.ENOSYS, "without io_uring")])
def test_a_filter_that_refuses_it_is_named(number, why):
    outcome = refused(number, "from stoker.cli import main; raise SystemExit(main(['engines']))")
    assert outcome.returncode == 0, outcome.stderr
    [line] = [line for line in outcome.stdout.splitlines() if "the kernel refuses io_uring" in line]
    assert f"{errno.errorcode[number]})" in line
    assert why in line
    assert line.endswith("use --engine epoll")


@compiled
def test_serve_refuses_it_where_a_filter_does():
    outcome = refused(errno.EPERM, "from stoker.cli import main; raise SystemExit(main(['m:a', '--engine', 'uring']))")
    assert outcome.returncode == 2, outcome.stderr
    assert outcome.stderr.startswith(
        "stoker: engine uring cannot run here: the kernel refuses io_uring (io_uring_setup"
    )
    assert "use --engine epoll" in outcome.stderr


@pytest.mark.parametrize(
    ("value", "why"), [("0\n", "seccomp"), ("1\n", "kernel.io_uring_group"), ("2\n", "is 2, "), (None, "seccomp")]
)
def test_the_sysctl_that_forbids_it_is_named(tmp_path, value, why):
    path = tmp_path / "io_uring_disabled"
    if value is not None:
        path.write_text(value)
    assert why in probe.explain(PermissionError(errno.EPERM, "io_uring_setup: Operation not permitted"), path)


def test_the_reason_is_told_by_the_errno():
    nowhere = Path("/nonexistent")
    for number, why in {errno.EINVAL: "Linux 6.1", errno.ENOMEM: "ulimit -l", errno.EMFILE: "EMFILE"}.items():
        assert why in probe.explain(OSError(number, "io_uring_setup: refused"), nowhere)


def test_an_interpreted_run_says_that_it_needs_the_compiled_modules():
    code = "from stoker import engines; print(engines.unavailable('uring'))"
    outcome = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(build.HERE.parent), build.VARIABLE: "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert outcome.stdout == ("it needs Stoker's compiled modules, and these run interpreted: use --engine epoll\n")


def test_the_tests_leave_it_out_for_a_reason():
    reason = engines.unavailable("uring")
    assert bool(reason) != bool(URING)
    assert not reason or "use --engine epoll" in reason


# The ring.


@pytest.fixture
def ring():
    from stoker.net.ring import Ring

    made = Ring(8, 64, 8)
    yield made
    made.close()


def completions(ring, count=1):
    """So many completions, as (tag, result, bytes or None)."""
    found = []
    deadline = time.monotonic() + 10
    while len(found) < count:
        assert time.monotonic() < deadline, found
        ring.enter(0.5)
        for _ in range(ring.ready()):
            ring.next()
            found.append((ring.tag, ring.result, ring.data() if ring.flags & 1 and ring.result > 0 else None))
    return found


@compiled
def test_a_receive_goes_on_until_it_is_cancelled(ring):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ring.recv(ours.fileno(), 7 << 40, True)
        for number in range(50):  # more than there are buffers
            theirs.send(b"%d" % number)
            assert completions(ring) == [(7 << 40, len(b"%d" % number), b"%d" % number)]
        ring.cancel(7 << 40, 4)
        assert sorted(completions(ring, 2)) == [(4, 0, None), (7 << 40, -errno.ECANCELED, None)]
        theirs.send(b"kept")
        assert ours.recv(10) == b"kept"


@compiled
def test_without_a_free_buffer_a_receive_ends_with_enobufs(ring):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(DATA[:200_000])
        ring.recv(ours.fileno(), 1, True)
        ring.enter(1.0)
        held = []
        while ring.ready():
            ring.next()
            held.append((ring.result, ring.flags))
            ring.enter(0.0)
        assert len(held) == 9
        assert held[-1][0] == -errno.ENOBUFS
        assert not held[-1][1] & 2


@compiled
def test_more_requests_than_the_queue_holds_are_submitted_on_the_way(ring):
    pairs = [socket.socketpair() for _ in range(30)]
    kept = [b"--%d" % number for number in range(30)]  # as long as the kernel reads them
    for number, (ours, _) in enumerate(pairs):
        ring.send(ours.fileno(), number, kept[number], 2)
    assert sorted(tag for tag, _, _ in completions(ring, 30)) == list(range(30))
    for number, (ours, theirs) in enumerate(pairs):
        assert theirs.recv(10) == b"%d" % number
        ours.close()
        theirs.close()


@compiled
def test_a_wait_ends_in_time_and_a_child_cannot_touch_the_ring(ring):
    start = time.monotonic()
    ring.enter(0.1)
    assert 0.09 <= time.monotonic() - start < 1
    assert ring.ready() == 0
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            faulthandler.disable()
            ctypes.CDLL(None).prctl(4, 0)  # PR_SET_DUMPABLE: no core is wanted
            ring.ready()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "the memory of the ring is not in a child"


# The engine.


@compiled
@pytest.mark.parametrize("pooled", [0, 2])
def test_who_is_not_asked_for_more_does_not_fill_our_memory(reports, pooled):
    def make(worker):
        def handler(connection):
            total = len((yield RECV))
            connection.deadline = time.monotonic() + 1.0
            yield SLEEP
            reports.say("ahead", sum(map(len, connection.inbox or [])))
            if pooled:
                yield from call(connection, Job(lambda: None))
            connection.deadline = float("inf")
            while data := (yield RECV):
                total += len(data)
            connection.write(b"%d" % total)
            yield DONE

        return handler

    with running("uring", make, threads=pooled) as engine, engine.connect(20) as client:
        sender = threading.Thread(target=lambda: (client.sendall(DATA * 4), client.shutdown(socket.SHUT_WR)))
        sender.start()
        [ahead] = reports.expect("ahead")
        assert ahead < 1 << 20
        assert int(exactly(client, 100)) == 4 * len(DATA)
        sender.join()


@compiled
def test_what_came_before_a_job_is_received_by_the_job(reports):
    def make(worker):
        from stoker.engines.blocking import PollIO

        def handler(connection):
            first = yield RECV
            connection.deadline = time.monotonic() + 0.2
            yield SLEEP  # meanwhile more comes, which the kernel puts in the inbox
            io = PollIO(10)
            connection.deadline = time.monotonic() + 10

            def job():
                got = first
                while len(got) < 15:
                    got += io.recv(connection)
                connection.write(got)

            yield from call(connection, Job(job))
            yield DONE

        return handler

    with running("uring", make, threads=1) as engine, engine.connect() as client:
        for number in range(5):
            client.send(b"<%d>" % number)
            time.sleep(0.15 if number == 3 else 0.01)
        assert exactly(client, 100) == b"<0><1><2><3><4>"


@compiled
def test_a_write_timeout_is_not_put_off_by_wakes_of_nobody(reports):
    """A send that is late counts from when it was found to be, and a client that takes nothing is given up."""

    def make(worker):
        def handler(connection):
            start = time.monotonic()
            try:
                connection.write(DATA * 4)
                yield RECV
            finally:
                reports.say("failed", connection.failure, time.monotonic() - start)

        return handler

    with running("uring", make, write_timeout=0.5) as engine, engine.connect():
        failure, seconds = reports.expect("failed")
        assert "took nothing" in failure
        assert 0.5 <= seconds < 2
        until(lambda: engine.row.connections == 0)


@compiled
def test_a_burst_past_the_cap_is_not_lost(reports):
    """With room for many the kernel accepts by itself; what it accepts too much waits, and is served in its turn."""
    with running("uring", echo, max_connections=300) as engine, contextlib.ExitStack() as stack:
        os.kill(engine.pid, 19)  # SIGSTOP
        clients = [stack.enter_context(engine.connect()) for _ in range(400)]
        for client in clients:
            client.send(b"ping")
        os.kill(engine.pid, 18)  # SIGCONT
        for client in clients[:300]:
            assert exactly(client, 4) == b"ping"
        assert engine.row.connections == 300
        for client in clients[:100]:
            client.close()
        for client in clients[300:]:
            assert exactly(client, 4) == b"ping"
        assert engine.row.refused == 0


@compiled
def test_numbers_of_descriptors_given_again_mix_nothing_up():
    """Connections that end with bytes, sends and resets under way, again and again on the same few numbers."""
    with running("uring", echo) as engine:
        before = engine.descriptors()
        for number in range(150):
            client = engine.connect()
            client.send(b"%04d" % number * 2000)
            if number % 3 == 0:
                reset(client)
                continue
            assert exactly(client, 8000) == b"%04d" % number * 2000
            if number % 3 == 1:
                client.send(b"unread")
            client.close()
        until(lambda: engine.row.connections == 0)
        until(lambda: engine.descriptors() == before)
