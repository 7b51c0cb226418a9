"""The end of a worker: what rests ends at once, what is under way is finished, what waits at the door is served."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import pytest
from tests.engines.handlers import Job, call, echo, ended, exactly, silent
from tests.engines.harness import running, until

from stoker.connection import BUSY, DONE, IDLE, RECV, RETIRING, SLEEP, WAITING


def patient(worker):
    """Echoes; ``sleep`` is answered after 0.4 s, ``for ever`` never. A stop reaches it where it waits for its peer."""

    def handler(connection):
        while True:
            connection.rest = WAITING
            data = yield RECV
            connection.rest = BUSY
            if not data:
                break
            if data in (b"sleep", b"for ever"):
                connection.deadline = time.monotonic() + (0.4 if data == b"sleep" else 60)
                yield SLEEP
                connection.deadline = float("inf")
            connection.write(data)
        yield DONE

    return handler


def stop(engine, how):
    if how == "byte":
        engine.tell(signal.SIGTERM)
    elif how == "signal":
        os.kill(engine.pid, signal.SIGTERM)
    else:
        engine.control.close()


@pytest.mark.parametrize("how", ["byte", "signal"])
def test_a_stop_ends_what_rests_and_finishes_what_is_under_way(configuration, how):
    with running(configuration, patient) as engine, contextlib.ExitStack() as stack:
        resting, busy, silent_one = (stack.enter_context(engine.connect()) for _ in range(3))
        resting.send(b"hello")
        assert resting.recv(10) == b"hello"
        busy.send(b"sleep")
        until(lambda: engine.row.connections == 3)
        time.sleep(0.05)
        start = time.monotonic()
        stop(engine, how)
        assert ended(resting)
        assert ended(silent_one)
        resting.close()
        silent_one.close()
        assert time.monotonic() - start < 0.35
        assert exactly(busy, 5) == b"sleep"
        busy.close()
        assert engine.wait() == 0
        assert time.monotonic() - start < 5  # long before the graceful timeout


def test_idle_connections_end_at_a_stop_too(configuration):
    def make(worker):
        def handler(connection):
            connection.rest = IDLE
            connection.deadline = time.monotonic() + 60
            data = yield RECV
            assert data == b""
            connection.linger = False

        return handler

    with running(configuration, make) as engine, engine.connect() as client:
        until(lambda: engine.row.connections == 1)
        time.sleep(0.05)
        engine.tell(signal.SIGTERM)
        assert ended(client)
        assert engine.wait() == 0


def test_who_waits_in_the_accept_queue_at_a_stop_is_served(configuration):
    with running(configuration, patient) as engine, contextlib.ExitStack() as stack:
        os.kill(engine.pid, signal.SIGSTOP)
        clients = [stack.enter_context(engine.connect()) for _ in range(100)]
        for client in clients:
            client.send(b"hello")
        engine.tell(signal.SIGTERM)
        os.kill(engine.pid, signal.SIGCONT)
        for client in clients:
            assert exactly(client, 5) == b"hello"
            client.close()
        assert engine.wait() == 0


def test_retiring_takes_nothing_new_and_serves_who_is_there(configuration):
    def make(worker):
        def handler(connection):
            while data := (yield RECV):
                connection.write(b"%s %d" % (data, worker.phase))

        return handler

    with running(configuration, make) as engine, engine.connect() as client, engine.connect() as other:
        client.send(b"a")
        assert client.recv(10) == b"a 0"
        other.send(b"a")
        assert other.recv(10) == b"a 0"
        engine.tell(signal.SIGHUP)
        until(lambda: refused(engine), what="the listener's end")

        def retired():
            client.send(b"b")
            return client.recv(10) == b"b %d" % RETIRING

        until(retired)
        client.close()
        assert silent(other)
        other.close()
        assert engine.wait() == 0


def refused(engine):
    try:
        engine.connect().close()
    except ConnectionError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_an_interrupt_ends_everything_now(configuration, reports, number):
    def make(worker):
        inner = patient(worker)

        def handler(connection):
            try:
                yield from inner(connection)
            finally:
                reports.say("failed", connection.failure)

        return handler

    with running(configuration, make) as engine, engine.connect() as busy, engine.connect() as resting:
        busy.send(b"for ever")
        until(lambda: engine.row.connections == 2)
        time.sleep(0.05)
        start = time.monotonic()
        engine.tell(number)
        assert ended(busy)
        assert ended(resting)
        assert engine.wait() == 0
        assert time.monotonic() - start < 2
        assert reports.expect("failed") == ["the server is stopping"]
        assert reports.expect("failed") == ["the server is stopping"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_graceful_timeout_ends_what_does_not_end(configuration, reports, number):
    def make(worker):
        inner = patient(worker)

        def handler(connection):
            try:
                yield from inner(connection)
            finally:
                reports.say("failed", connection.failure)

        return handler

    with running(configuration, make, graceful_timeout=0.5) as engine, engine.connect() as busy:
        busy.send(b"for ever")
        until(lambda: engine.row.connections == 1)
        time.sleep(0.05)
        start = time.monotonic()
        engine.tell(number)
        assert ended(busy)
        assert 0.45 < time.monotonic() - start < 2
        assert engine.wait() == 0
        assert reports.expect("failed") == ["the graceful timeout is over"]


@pytest.mark.parametrize("blocking", ["process", "thread"])
def test_the_graceful_timeout_ends_what_is_blocked_in_the_application(blocking, reports):
    def make(worker):
        def handler(connection):
            yield RECV

            def job():
                reports.say("blocked")
                time.sleep(60)

            yield from call(connection, Job(job))

        return handler

    with running(blocking, make, graceful_timeout=0.3) as engine, engine.connect() as client:
        client.send(b"go")
        reports.expect("blocked")
        start = time.monotonic()
        engine.tell(signal.SIGTERM)
        assert engine.wait() == 0
        assert time.monotonic() - start < 5
        assert ended(client)


def test_a_worker_whose_master_is_gone_drains(configuration):
    with running(configuration, patient) as engine, engine.connect() as resting, engine.connect() as busy:
        busy.send(b"sleep")
        until(lambda: engine.row.connections == 2)
        time.sleep(0.3)
        stop(engine, "death")
        assert ended(resting)
        resting.close()
        if configuration != "process":  # whose children must be gone within a second, answered or not
            assert exactly(busy, 5) == b"sleep"
        busy.close()
        assert engine.wait() == 0


@pytest.mark.parametrize("how", ["byte", "signal"])
def test_reopening_the_logs_disturbs_nobody(configuration, how):
    with running(configuration, echo) as engine, engine.connect() as client:
        for _ in range(3):
            if how == "byte":
                engine.tell(signal.SIGUSR1)
            else:
                os.kill(engine.pid, signal.SIGUSR1)
            for _ in range(5):
                client.send(b"ping")
                assert client.recv(10) == b"ping"
                time.sleep(0.005)


def test_a_stop_of_an_idle_worker_is_quick(configuration):
    with running(configuration, echo) as engine:
        start = time.monotonic()
        engine.tell(signal.SIGTERM)
        assert engine.wait() == 0
        assert time.monotonic() - start < 1


def test_an_idle_worker_costs_next_to_nothing(configuration):
    """No engine burns a core while nothing happens; nonblocking neither, with its pauses."""
    with running(configuration, echo) as engine, engine.connect() as client:
        client.send(b"x")
        assert client.recv(1) == b"x"
        time.sleep(0.1)
        before, start = engine.cpu(), time.monotonic()
        time.sleep(0.6)
        assert engine.cpu() - before <= 0.05 * (time.monotonic() - start) + 0.01
