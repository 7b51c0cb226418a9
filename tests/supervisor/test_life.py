"""The life of a server and of its workers, driven by signals."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.supervisor.harness import (
    Counting,
    Server,
    alive,
    children,
    cpu_seconds,
    request,
    running,
    state_of,
    wait_for,
)

Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    servers: list[Server] = []

    def started(**options: object) -> Server:
        servers.append(Server(tmp_path, **options))
        return servers[-1]

    yield started
    for server in servers:
        server.stop()


# Start


def test_start_serve_stop(start: Start) -> None:
    server = start(workers=3).ready(3)
    assert len(server.workers()) == 3
    pid, answer = server.ask()
    assert pid in server.workers()
    assert answer == "hello 0"
    server.kill()
    assert server.wait() == 0
    assert children(server.pid) == []
    assert server.log().endswith("stopped\n")


@pytest.mark.parametrize(("text", "status"), [("fail", 3), ("exit 3", 3), ("exit 2", 2)])
def test_a_worker_that_cannot_start_ends_the_start(start: Start, tmp_path: Path, text: str, status: int) -> None:
    (tmp_path / "app").write_text(text)
    server = start(workers=3, application=tmp_path / "app")
    assert server.wait() == status
    assert "the server cannot start" in server.log()
    assert not [pid for pid in map(int, re.findall(r"process (\d+)\)", server.log())) if alive(pid)]


def test_a_worker_that_crashes_while_it_starts_is_tried_again_ever_more_slowly(start: Start, tmp_path: Path) -> None:
    (tmp_path / "app").write_text("exit 1")
    server = start(application=tmp_path / "app")
    delays = [float(one) for one in server.wait_log(r"ended with status 1; another is started in ([\d.]+) s", 2)]
    assert 0 < delays[0] < delays[1]
    (tmp_path / "app").write_text("good")
    server.ready()
    assert server.ask()[1] == "good 0"


def test_an_address_in_use(start: Start) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        server = start(bind=f"127.0.0.1:{other.getsockname()[1]}")
        assert server.wait() == 3
        assert "is in use by another program" in server.log()


# The end


def test_term_answers_what_is_under_way_and_what_is_queued(start: Start) -> None:
    server = start(workers=2, slow=0.2).ready(2)
    clients = [server.connect() for _ in range(12)]
    for client in clients:
        client.sendall(b"hello\n")
    server.kill()
    server.wait_log("SIGTERM: stopping")
    for client in clients:
        assert request(client, "")[1] == "hello 0"
        client.close()
    assert server.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        server.connect()


def test_the_graceful_timeout(start: Start) -> None:
    server = start(stick="True", graceful_timeout=0.2).ready()
    with server.connect() as client:
        client.sendall(b"stick\n")
        wait_for(lambda: state_of(server.workers()[0]) == "S", "the worker sleeps")
        begun = time.monotonic()
        server.kill()
        assert server.wait() == 0
        assert time.monotonic() - begun < 4
    assert "has not ended in time: it is killed" in server.log()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_int_and_quit_do_not_drain(start: Start, number: int) -> None:
    server = start(slow=1).ready()
    with server.connect() as client:
        client.sendall(b"hello\n")
        time.sleep(0.1)  # into the middle of the request; if it has not begun, it is not answered either
        with server.connect() as queued:
            server.kill(number)
            with pytest.raises(ConnectionResetError):
                queued.recv(1)
        assert server.wait() == 0
    assert "stopping without draining" in server.log()


def test_a_second_int_kills_at_once(start: Start) -> None:
    server = start(workers=2, stick="True").ready(2)
    clients = [server.connect() for _ in range(2)]
    for client in clients:
        client.sendall(b"stick\n")
    server.kill(signal.SIGINT)
    server.wait_log("SIGINT: stopping without draining")
    server.kill(signal.SIGINT)
    assert server.wait() == 0
    assert "SIGINT again: every worker is killed" in server.log()
    assert "has not ended in time" not in server.log()
    for client in clients:
        client.close()


def test_int_breaks_a_drain_off(start: Start) -> None:
    server = start(slow=2).ready()
    with server.connect() as client:
        client.sendall(b"hello\n")
        server.kill()
        server.wait_log("SIGTERM: stopping")
        server.kill(signal.SIGINT)
        server.wait_log("SIGINT: stopping without draining")
        assert server.wait() == 0


def test_term_while_the_workers_import(start: Start) -> None:
    server = start(boot=30)
    server.wait_log("listening")
    wait_for(server.workers, "a worker")
    server.kill()
    begun = time.monotonic()
    assert server.wait() == 0
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize("reuse_port", ["false", "true"])
def test_term_while_the_workers_import_and_somebody_is_queued(start: Start, reuse_port: str) -> None:
    server = start(workers=2, boot=1, reuse_port=reuse_port)
    server.wait_log("listening")
    wait_for(lambda: len(server.workers()) == 2, "the workers")
    clients = [server.connect() for _ in range(10)]
    for client in clients:
        client.sendall(b"hello\n")
    server.kill()
    server.wait_log("SIGTERM: stopping")
    for client in clients:
        assert request(client, "")[1] == "hello 0"
        client.close()
    assert server.wait() == 0


def test_reuse_port_one_less_before_it_was_ready_loses_nobody(start: Start) -> None:
    """The kernel spreads connections over a new listener before its worker can accept."""
    server = start(workers=1, boot=0.3, reuse_port="true").ready()
    with Counting(server) as counting:
        for turn in range(5):
            server.kill(signal.SIGTTIN)
            server.wait_log("SIGTTIN: one worker more", turn + 1)
            server.kill(signal.SIGTTOU)
            server.wait_log("SIGTTOU: one worker less", turn + 1)
            counting.more()
    assert counting.failures == []


def test_when_the_master_dies_the_workers_drain(start: Start) -> None:
    server = start(workers=2, slow=0.5).ready(2)
    workers = server.workers()
    with server.connect() as client:
        client.sendall(b"hello\n")
        server.kill(signal.SIGKILL)
        server.wait()
        assert request(client, "")[0] in workers
    wait_for(lambda: not any(map(alive, workers)), "the workers end")


# Workers come and go


def test_a_killed_worker_is_replaced(start: Start) -> None:
    server = start(workers=2).ready(2)
    for turn in range(3):
        victim = server.workers()[0]
        os.kill(victim, signal.SIGKILL)
        server.ready(3 + turn)
        assert len(server.workers()) == 2
        assert victim not in children(server.pid), "a zombie"
    assert "was killed by SIGKILL (does the machine lack memory?" in server.log()
    assert server.ask()[0] in server.workers()


def test_a_tired_worker_is_replaced_before_it_leaves(start: Start) -> None:
    server = start().ready()
    with Counting(server) as counting, server.connect() as kept:
        old = request(kept, "tire")[0]
        server.ready(2)
        [new] = set(server.workers()) - {old}
        counting.more()
        assert request(kept)[0] == old, "the kept connection gets one more answer"
        assert kept.recv(1) == b""
        wait_for(lambda: not alive(old), "the old worker ends")
        wait_for(lambda: new in counting.pids, "an answer of the new one")
    assert counting.failures == []


def test_a_retired_worker_that_does_not_end_is_killed(start: Start) -> None:
    server = start(graceful_timeout=0.2, stick="True").ready()
    with server.connect() as stuck, server.connect() as other:
        old = request(other, "tire")[0]
        stuck.sendall(b"stick\n")
        server.wait_log("has not ended in time: it is killed")
        wait_for(lambda: server.workers() and old not in server.workers(), "the old worker is gone")


def test_a_stuck_worker_is_replaced(start: Start) -> None:
    server = start(workers=2, stick="True", worker_timeout=2).ready(2)
    with server.connect() as client:
        client.sendall(b"stick\n")
        server.wait_log(r"is stuck: its loop has not turned for \d+ s while no application code ran")
        server.ready(3)
    wait_for(lambda: len(server.workers()) == 2, "two workers")
    assert server.ask()[1] == "hello 0"


def test_a_worker_that_imports_for_long_is_not_stuck(start: Start) -> None:
    server = start(boot=3.5, worker_timeout=2).ready()
    assert "stuck" not in server.log()


def test_more_and_less(start: Start) -> None:
    server = start(workers=1).ready()
    with Counting(server) as counting:
        for wanted in (2, 3):
            server.kill(signal.SIGTTIN)
            wait_for(lambda wanted=wanted: len(server.workers()) == wanted, f"{wanted} workers")
        server.ready(3)
        for wanted in (2, 1):
            server.kill(signal.SIGTTOU)
            wait_for(lambda wanted=wanted: len(server.workers()) == wanted, f"{wanted} workers")
        server.kill(signal.SIGTTOU)
        server.wait_log("there is only one worker: it stays")
        counting.more()
    assert counting.failures == []
    assert len(server.workers()) == 1


def test_usr1_opens_the_logs_again(start: Start, tmp_path: Path) -> None:
    server = start(workers=2, error_logfile=tmp_path / "errors")
    errors = tmp_path / "errors"
    wait_for(lambda: errors.exists() and errors.read_text().count("is ready") == 2, "two workers")
    errors.rename(tmp_path / "errors.1")
    server.kill(signal.SIGUSR1)
    wait_for(lambda: errors.exists() and errors.read_text().count("opened its logs again") == 2, "both workers")
    assert "SIGUSR1: the log files are open again" in errors.read_text()


def test_usr2_does_no_harm(start: Start) -> None:
    server = start().ready()
    server.kill(signal.SIGUSR2)
    server.wait_log("SIGUSR2 has no meaning here")
    assert server.ask()


# Reload


def test_reload_reads_the_options_again(start: Start, tmp_path: Path) -> None:
    (tmp_path / "options").write_text("threads=1\n")
    server = start(workers=2, options=tmp_path / "options").ready(2)
    old = server.workers()
    assert server.ask()[1] == "hello 1"
    (tmp_path / "options").write_text("threads=2\nworkers=3\nbind=127.0.0.1:1\n")
    with Counting(server) as counting:
        server.kill(signal.SIGHUP)
        server.wait_log("reload: every worker is new")
        server.ready(5)
        counting.more()
    assert counting.failures == []
    wait_for(lambda: len(server.workers()) == 3 and not set(old) & set(server.workers()), "three new workers")
    assert server.ask()[1] == "hello 2"
    assert "a new value of --bind has no effect before a restart" in server.log()
    assert children(server.pid) == server.workers(), "a zombie"


def test_one_after_another_and_never_fewer(start: Start) -> None:
    """While the first new worker imports, all old ones serve; there are never two that import."""
    server = start(workers=3, boot=0.3).ready(3)
    server.kill(signal.SIGHUP)
    most, least = 0, 9
    deadline = time.monotonic() + 15
    while "every worker is new" not in server.log():
        assert time.monotonic() < deadline
        count = len(server.workers())
        most, least = max(most, count), min(least, count)
    assert least >= 3
    assert most <= 5  # three, the one that imports, and one that is just ending


def test_an_application_that_cannot_be_imported_does_not_replace_one_that_works(start: Start, tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.write_text("old")
    server = start(workers=2, application=app).ready(2)
    old = sorted(server.workers())
    for broken in ("fail", "exit 1", "raise"):
        app.write_text(broken)
        seen = server.log().count("reload given up")
        server.kill(signal.SIGHUP)
        server.wait_log(r"reload given up: worker \d+ \(process \d+\) ended with status \d", seen + 1)
        wait_for(lambda: sorted(server.workers()) == old, "only the old workers")
        assert server.ask()[1] == "old 0"
    app.write_text("new")
    server.kill(signal.SIGHUP)
    server.wait_log("every worker is new")
    assert server.ask()[1] == "new 0"


def test_options_that_are_wrong_change_nothing(start: Start, tmp_path: Path) -> None:
    (tmp_path / "options").write_text("threads=1\n")
    server = start(options=tmp_path / "options").ready()
    old = server.workers()
    (tmp_path / "options").write_text("threads=many\n")
    server.kill(signal.SIGHUP)
    server.wait_log("SIGHUP: no reload: .*threads")
    (tmp_path / "options").unlink()
    server.kill(signal.SIGHUP)
    server.wait_log("SIGHUP: no reload: the configuration cannot be read")
    assert server.workers() == old


def test_a_newer_reload_overtakes(start: Start, tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.write_text("one")
    server = start(workers=2, application=app, boot=0.4).ready(2)
    app.write_text("two")
    server.kill(signal.SIGHUP)
    wait_for(lambda: len(server.workers()) == 3, "a successor")
    app.write_text("three")
    server.kill(signal.SIGHUP)
    server.wait_log("every worker is new")
    assert {server.ask()[1] for _ in range(10)} == {"three 0"}
    wait_for(lambda: len(server.workers()) == 2, "two workers")


def test_term_during_a_reload(start: Start) -> None:
    server = start(workers=2, boot=0.5).ready(2)
    server.kill(signal.SIGHUP)
    wait_for(lambda: len(server.workers()) == 3, "a successor")
    server.kill()
    assert server.wait() == 0


def test_a_worker_that_dies_during_a_reload_is_replaced_all_the_same(start: Start) -> None:
    server = start(workers=2, boot=0.4).ready(2)
    old = server.workers()
    server.kill(signal.SIGHUP)
    wait_for(lambda: len(server.workers()) == 3, "a successor")
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    server.wait_log("every worker is new")
    wait_for(lambda: len(server.workers()) == 2, "two workers")
    assert not set(old) & set(server.workers())


@pytest.mark.parametrize("reuse_port", ["false", "true"])
def test_nothing_is_lost_by_twenty_events(start: Start, reuse_port: str) -> None:
    server = start(workers=2, reuse_port=reuse_port).ready(2)
    with Counting(server, 4) as counting:
        for turn in range(10):
            server.kill(signal.SIGHUP)
            server.wait_log("every worker is new", turn + 1)
            counting.more()
        wait_for(lambda: len(server.workers()) == 2, "the retired ones are gone")
        wanted = 2
        for step in (1, 1, -1, -1, -1, 1, 1, -1, -1, 1):
            wanted += step
            server.kill(signal.SIGTTIN if step > 0 else signal.SIGTTOU)
            wait_for(lambda wanted=wanted: len(server.workers()) == wanted, f"{wanted} workers")
            counting.more()
    assert counting.failures == []
    assert counting.answers >= 400
    server.kill()
    assert server.wait() == 0


def test_reuse_port_a_slot_keeps_its_queue_when_its_worker_dies(start: Start) -> None:
    server = start(workers=2, reuse_port="true", slow=0.2).ready(2)
    for pid in server.workers():
        os.kill(pid, signal.SIGSTOP)
    clients = [server.connect() for _ in range(10)]
    for client in clients:
        client.sendall(b"hello\n")
    for pid in server.workers():
        os.kill(pid, signal.SIGKILL)
    for client in clients:
        assert request(client, "")[0] in server.workers()
        client.close()


# Manners


def test_an_idle_master_rests(start: Start) -> None:
    server = start(workers=2).ready(2)
    before, begun = cpu_seconds(server.pid), time.monotonic()
    switches = Path(f"/proc/{server.pid}/status").read_text()
    time.sleep(2)  # what is measured is this time
    assert cpu_seconds(server.pid) - before <= 0.02 * (time.monotonic() - begun) + 0.02
    count = r"^voluntary_ctxt_switches:\s+(\d+)"
    [earlier], [later] = (
        re.findall(count, text, re.M) for text in (switches, Path(f"/proc/{server.pid}/status").read_text())
    )
    assert int(later) - int(earlier) <= 8


def test_children_get_sane_signals(start: Start) -> None:
    server = start().ready()
    [worker] = server.workers()
    status = Path(f"/proc/{worker}/status").read_text()
    blocked, ignored = (
        int(re.findall(rf"^{name}:\s+([0-9a-f]+)", status, re.M)[0], 16) for name in ("SigBlk", "SigIgn")
    )
    assert blocked == 0
    job = 1 << signal.SIGTTIN - 1 | 1 << signal.SIGTTOU - 1
    assert ignored & ~(1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1) == job


def test_a_worker_has_its_own_descriptors_alone(start: Start) -> None:
    """A sibling's control socket would keep that from seeing the master die, another slot's listener from closing."""
    server = start(workers=3, reuse_port="true", pid="pid").ready(3)
    for pid in server.workers():
        kinds = [os.readlink(f"/proc/{pid}/fd/{fd}").partition(":")[0] for fd in os.listdir(f"/proc/{pid}/fd")]
        assert kinds.count("socket") == 2  # the listener and the control socket
        assert kinds.count("anon_inode") == 0
        assert not [kind for kind in kinds if kind.endswith("/pid")]


def test_the_statistics_of_a_server_without_a_terminal_cost_nothing(tmp_path: Path) -> None:
    with running(tmp_path, keys="true") as server:
        server.ready()
        assert "keys, each followed by Enter" not in server.log()
