"""Engine ``process``: its children, from fork to the last of them."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import time

import pytest
from tests.engines.handlers import Job, call, echo, ended, exactly, idle_echo
from tests.engines.harness import running, until

from stoker.connection import BUSY, RECV


def talk(client, data=b"ping"):
    client.send(data)
    return exactly(client, len(data)) == data


def alive(pid):
    """Is it a process, and no zombie?"""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def sockets_here():
    """The sockets that this process has open, by inode."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own descriptor
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return [target for target in found if target.startswith("socket:")]


def stuck(reports):
    """A handler whose application blocks and shields itself against everything that can be caught."""

    def make(worker):
        def handler(connection):
            yield RECV

            def job():
                reports.say("stuck", os.getpid())
                deadline = time.monotonic() + 30
                while time.monotonic() < deadline:
                    with contextlib.suppress(BaseException):
                        time.sleep(30)

            yield from call(connection, Job(job))

        return handler

    return make


def test_each_connection_has_a_process_of_its_own(reports):
    def make(worker):
        def handler(connection):
            with open("/proc/self/cmdline", "rb") as file:
                title = file.read().rstrip(b"\0 ").decode()
            reports.say("child", os.getpid(), os.getppid(), title, sockets_here())
            while data := (yield RECV):
                connection.write(data)

        return handler

    with running("process", make) as engine, engine.connect() as one, engine.connect() as two:
        assert talk(one)
        assert talk(two)
        [first, parent, title, sockets], [second, _, _, more] = reports.expect("child"), reports.expect("child")
        assert parent == engine.pid
        assert first != second
        assert sorted(engine.children()) == sorted([first, second])
        assert title.startswith("stoker: worker 1 [process] 127.0.0.1:")
        assert len(set(sockets) & set(more)) == len(sockets) - 1  # what they share is pytest's, not a connection
        one.close()
        until(lambda: len(engine.children()) == 1)  # reaped as well
        assert talk(two)


def test_a_child_holds_no_socket_of_the_worker(reports):
    def make(worker):
        def handler(connection):
            reports.say("listening", [inode for inode in listening() if f"socket:[{inode}]" in sockets_here()])
            yield RECV

        return handler

    def listening():
        with open("/proc/net/tcp", encoding="ascii") as file:
            return [line.split()[9] for line in list(file)[1:] if line.split()[3] == "0A"]

    with running("process", make) as engine, engine.connect():
        assert reports.expect("listening") == [[]]


def test_children_that_end_are_reaped_at_once_and_counted():
    def make(worker):
        inner = idle_echo(worker)

        def handler(connection):
            try:
                yield from inner(connection)
            finally:
                worker.row.errors += 1

        return handler

    with running("process", make) as engine:
        for _ in range(3):
            clients = [engine.connect() for _ in range(20)]
            for client in clients:
                assert talk(client)
                assert talk(client)
            until(lambda: engine.row.connections == 20)
            for client in clients:
                client.close()
            until(lambda: not engine.children())
        until(lambda: engine.row.requests == 120, what="the sum over children")
        until(lambda: engine.row.errors == 60)
        assert engine.row.accepted == 60
        assert engine.row.connections == 0


def test_requests_of_living_children_are_counted_too():
    with running("process", idle_echo) as engine, engine.connect() as one, engine.connect() as two:
        for _ in range(5):
            assert talk(one)
            assert talk(two)
        until(lambda: engine.row.requests == 10)


def test_max_requests_is_counted_over_all_children():
    with running("process", idle_echo, max_requests=10) as engine, contextlib.ExitStack() as stack:
        engine.control.settimeout(10)
        assert engine.control.recv(1) == b"R"
        clients = [stack.enter_context(engine.connect()) for _ in range(5)]
        for client in clients:
            assert talk(client)
        for client in clients:
            assert talk(client)
        assert engine.control.recv(1) == b"Q"
        for client in clients:
            assert talk(client)
        engine.control.settimeout(0.3)
        with pytest.raises(TimeoutError):  # said once
            engine.control.recv(1)


def logged(capfd, text):
    """Wait for a text in the log: the parent writes it after it has collected the child."""
    seen = []

    def said():
        seen.append(capfd.readouterr().err)
        return text in "".join(seen)

    until(said, what=f"{text!r} in the log")


def test_a_child_that_crashes_takes_nobody_with_it(capfd):
    def make(worker):
        def handler(connection):
            while data := (yield RECV):
                if data == b"crash":
                    os.kill(os.getpid(), signal.SIGSEGV)
                connection.write(data)

        return handler

    with running("process", make) as engine, engine.connect() as victim, engine.connect() as other:
        victim.send(b"crash")
        assert ended(victim)
        assert talk(other)
        until(lambda: len(engine.children()) == 1)
        logged(capfd, "SIGSEGV")


def test_a_child_that_ends_itself_is_in_the_log(capfd):
    def make(worker):
        def handler(connection):
            yield RECV
            os._exit(7)

        return handler

    with running("process", make) as engine, engine.connect() as client:
        client.send(b"now")
        assert ended(client)
        until(lambda: not engine.children())
        logged(capfd, "ended with status 7")


def test_a_fork_that_fails_costs_one_connection(capfd):
    def setup(worker):
        fork, count = os.fork, []

        def failing():
            count.append(1)
            if len(count) in (2, 3):
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            return fork()

        os.fork = failing

    with running("process", echo, setup) as engine, engine.connect() as one:
        assert talk(one)
        for _ in range(2):
            with engine.connect() as client:
                assert ended(client)
        with engine.connect() as client:
            assert talk(client)
        assert engine.row.refused == 2
        until(lambda: engine.row.connections == 1)
    assert "cannot fork" in capfd.readouterr().err


@pytest.mark.parametrize("death", ["worker", "master"])
def test_children_are_gone_within_a_second_of_a_death(reports, death):
    with running("process", stuck(reports)) as engine, engine.connect() as client, engine.connect() as resting:
        client.send(b"go")
        [pid] = reports.expect("stuck")
        until(lambda: len(engine.children()) == 2)
        children = engine.children()
        assert pid in children
        start = time.monotonic()
        if death == "worker":
            os.kill(engine.pid, signal.SIGKILL)
            engine.wait()
        else:
            engine.control.close()
        until(lambda: not any(alive(child) for child in children), 3)
        assert time.monotonic() - start < 1
        assert ended(client)
        assert ended(resting)
        if death == "master":
            assert engine.wait() == 0


def test_the_graceful_timeout_kills_what_shields_itself(reports):
    with running("process", stuck(reports), graceful_timeout=0.3) as engine, engine.connect() as client:
        client.send(b"go")
        [pid] = reports.expect("stuck")
        start = time.monotonic()
        engine.tell(signal.SIGTERM)
        assert engine.wait() == 0
        assert 2.3 <= time.monotonic() - start < 5  # it had two seconds for its last words
        assert not alive(pid)


def test_the_application_may_have_processes_of_its_own(reports):
    """Its children are its own to wait for, in the worker and in a connection's process."""

    def make(worker):
        own = os.fork()  # as an application may when it is imported
        if own == 0:
            os._exit(7)

        def handler(connection):
            while data := (yield RECV):
                pid = os.fork()
                if pid == 0:
                    os._exit(5)
                connection.write(b"%d " % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) + data)

        return handler

    with running("process", make) as engine:
        for _ in range(3):
            with engine.connect() as client:
                client.send(b"x")
                assert client.recv(10) == b"5 x"
        until(lambda: engine.row.connections == 0)
        assert len(engine.children()) == 1  # the application's, which nobody has waited for


def test_a_client_that_is_told_503_is_not_held_by_a_child():
    """A child that is forked meanwhile must not keep a copy of the refused client's socket."""

    def setup(worker):
        worker.full_answer = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\r\n"

    with running("process", idle_echo, setup, max_connections=1, on_overload="503") as engine:
        with engine.connect() as one:
            assert talk(one, b"busy")
            refused = engine.connect()
            assert refused.recv(12) == b"HTTP/1.1 503"
        until(lambda: engine.row.connections == 0)
        with engine.connect() as two, refused:
            assert talk(two)
            refused.shutdown(socket.SHUT_WR)
            port = refused.getsockname()[1]
            until(lambda: not established(engine.address[1], port), 20, "the end of the refused connection")
            assert talk(two)


def established(server, client):
    """Whether a socket of the server's port is still connected to this client's port."""
    with open("/proc/net/tcp", encoding="ascii") as file:
        rows = [line.split() for line in list(file)[1:]]
    return any(
        row[1].endswith(f":{server:04X}") and row[2].endswith(f":{client:04X}") and row[9] != "0" for row in rows
    )


def test_signals_that_come_while_forking_reach_every_child():
    """A stop in the middle of a burst of connections: each is answered or refused, and nobody stays."""
    for _ in range(5):
        with running("process", echo) as engine, contextlib.ExitStack() as stack:
            clients = [stack.enter_context(engine.connect()) for _ in range(30)]
            for client in clients:
                client.send(b"ping")
            engine.tell(signal.SIGTERM)
            for client in clients:
                assert exactly(client, 4) == b"ping"
                client.close()
            assert engine.wait(5) == 0


def test_an_interrupt_from_the_terminal_ends_child_and_worker(reports):
    """Ctrl-C goes to the whole process group: to the children before the worker has said anything."""

    def make(worker):
        def handler(connection):
            connection.rest = BUSY
            try:
                while data := (yield RECV):
                    connection.write(data)
            finally:
                reports.say("failed", connection.failure)

        return handler

    with running("process", make) as engine, engine.connect() as client:
        assert talk(client)
        [child] = engine.children()
        os.kill(child, signal.SIGINT)
        assert ended(client)
        assert reports.expect("failed") == ["the server is stopping"]
        until(lambda: not engine.children())
        with engine.connect() as other:
            assert talk(other)
