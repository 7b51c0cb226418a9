"""CALL, in place and on threads, DONE, and every other end of a handler. On every engine."""

from __future__ import annotations

import array
import fcntl
import os
import select
import socket
import termios
import threading
import time

import pytest
from tests.engines.handlers import (
    POOLED,
    Job,
    call,
    ended,
    everything,
    in_thread,
    original,
    reset,
    silent,
)
from tests.engines.harness import running, until

from stoker.connection import DONE, RECV, SLEEP

# CALL.


def test_a_job_runs_and_keeps_its_result(configuration):
    def make(worker):
        def handler(connection):
            total = 0
            while data := (yield RECV):
                for number in range(3):
                    total += yield from call(connection, Job(lambda number=number: number + len(data)))
                connection.write(b"%d " % total)
            yield DONE

        return handler

    with running(configuration, make) as engine, engine.connect() as client:
        client.send(b"four")
        assert client.recv(100) == b"15 "
        client.send(b"1")
        assert client.recv(100) == b"21 "


def test_what_a_job_writes_goes_out(configuration):
    def make(worker):
        def handler(connection):
            data = yield RECV
            connection.write(b"before ")
            yield from call(connection, Job(lambda: connection.write(data)))
            connection.write(b" after")
            yield DONE

        return handler

    with running(configuration, make) as engine, engine.connect() as client:
        client.send(b"during")
        assert everything(client) == b"before during after"


@pytest.mark.parametrize("pooled", POOLED)
def test_jobs_of_the_pool_run_beside_each_other_and_hold_nobody_up(pooled):
    def make(worker):
        barrier = threading.Barrier(2)

        def handler(connection):
            while data := (yield RECV):
                if data == b"meet":
                    yield from call(connection, Job(lambda: barrier.wait(10)))
                connection.write(data)

        return handler

    with running(pooled, make, threads=2) as engine, engine.connect() as one, engine.connect() as two:
        one.send(b"meet")
        with engine.connect() as other:
            for _ in range(20):
                other.send(b"ping")
                assert other.recv(10) == b"ping"
        assert silent(one, 0.05)
        two.send(b"meet")
        assert one.recv(10) == two.recv(10) == b"meet"


@pytest.mark.parametrize("pooled", POOLED)
def test_while_a_job_is_out_the_engine_keeps_its_hands_off(pooled, reports):
    def make(worker):
        def handler(connection):
            yield RECV
            go = threading.Event()
            worker.row.busy = 0

            def job():
                reports.say("out")
                deadline = time.monotonic() + 10
                waiting = array.array("i", [0])
                while waiting[0] < 9 and time.monotonic() < deadline:
                    fcntl.ioctl(connection.fd, termios.FIONREAD, waiting)
                    go.wait(0.01)
                connection.write(b"%d " % waiting[0])
                reports.say("seen")
                go.wait(0.5)

            yield from call(connection, Job(job))
            rest = yield RECV
            connection.write(rest)
            yield DONE

        return handler

    with running(pooled, make, threads=2) as engine, engine.connect() as client:
        client.send(b"go")
        reports.expect("out")
        client.send(b"untouched")
        reports.expect("seen")
        before, start = engine.cpu(), time.monotonic()
        assert everything(client) == b"9 untouched"
        used, lasted = engine.cpu() - before, time.monotonic() - start
        assert lasted > 0.3
        assert used < 0.3 * lasted  # the waiting data does not make the loop spin


@pytest.mark.parametrize("pooled", POOLED)
@pytest.mark.parametrize("dedicated", [False, True])
def test_a_reset_while_a_job_is_out_cancels_it(pooled, dedicated, reports):
    def make(worker):
        def handler(connection):
            try:
                yield RECV
                cancelled = threading.Event()

                def job():
                    reports.say("out")
                    reports.say("cancelled", cancelled.wait(10), connection.gone)

                yield from call(connection, Job(job, dedicated, cancelled.set))
                reports.say("wrongly resumed")
            finally:
                reports.say("failed", connection.failure)

        return handler

    with running(pooled, make, threads=0 if dedicated else 2) as engine:
        client = engine.connect()
        client.send(b"go")
        reports.expect("out")
        client.send(b"unread")
        reset(client)
        assert reports.expect("cancelled") == [True, True]
        assert reports.expect("failed") != [""]
        assert reports.count("wrongly resumed") == 0
        until(lambda: engine.row.connections == 0)


def test_a_dedicated_job_holds_nobody_up(configuration):
    reader, writer = os.pipe()

    def make(worker):
        def handler(connection):
            while data := (yield RECV):
                if data == b"wait":

                    def job():
                        # By the module, and at the last moment: gevent has put its own function there.
                        select.select([reader], [], [], 10)
                        return os.read(reader, 1)

                    data = yield from call(connection, Job(job, dedicated=True))
                connection.write(data)

        return handler

    with running(configuration, make) as engine, engine.connect() as waiting, engine.connect() as other:
        waiting.send(b"wait")
        for _ in range(20):
            other.send(b"ping")
            assert other.recv(10) == b"ping"
        assert silent(waiting, 0.05)
        os.write(writer, b"!")
        assert waiting.recv(10) == b"!"
        waiting.send(b"more")
        assert waiting.recv(10) == b"more"
    os.close(reader)
    os.close(writer)


# The end of a handler.


@pytest.mark.parametrize("where", ["at once", "after data", "in finally", "in a job"])
def test_an_exception_ends_its_connection_alone(configuration, where):
    def make(worker):
        def handler(connection):
            if where == "at once":
                raise ValueError("at once, for the test")
            try:
                data = yield RECV
                if data == b"fail" and where == "after data":
                    raise ValueError("after data, for the test")
                if where == "in a job" and data == b"fail":
                    yield from call(connection, Job(lambda: 1 / 0))
                connection.write(data)
                yield RECV
            finally:
                if where == "in finally":
                    raise ValueError("in finally, for the test")

        return handler

    with running(configuration, make) as engine:
        with engine.connect() as other:
            for _ in range(3):
                with engine.connect() as client:
                    try:
                        client.send(b"fail")
                        if where == "in finally":
                            client.recv(10)
                            client.shutdown(socket.SHUT_WR)
                    except ConnectionError:
                        pass
                    assert ended(client)
            if where != "at once":
                other.send(b"fine")
                assert other.recv(10) == b"fine"
        until(lambda: engine.row.connections == 0)
        engine.tell(15)
        assert engine.wait() == 0


def test_a_last_answer_reaches_a_client_that_is_still_sending(configuration, reports):
    def make(worker):
        def handler(connection):
            try:
                yield RECV
                connection.write(b"no, thank you")
                yield DONE
            finally:
                reports.say("done", connection.failure)

        return handler

    with running(configuration, make) as engine:
        for _ in range(5):
            with engine.connect() as client:
                client.sendall(b"x" * 10_000)
                time.sleep(0.01)
                client.sendall(b"x" * 300_000)
                assert everything(client) == b"no, thank you"
            assert reports.expect("done") == [""]
        until(lambda: engine.row.connections == 0)


def test_a_handler_that_returns_is_done(configuration):
    def make(worker):
        def handler(connection):
            connection.write((yield RECV))

        return handler

    with running(configuration, make) as engine, engine.connect() as client:
        client.send(b"once")
        assert everything(client) == b"once"
        client.close()
        until(lambda: engine.row.connections == 0)


def test_a_client_that_never_closes_is_not_waited_for_for_ever(configuration):
    def make(worker):
        def handler(connection):
            connection.linger = (yield RECV) == b"linger"
            connection.write(b"bye")
            yield DONE

        return handler

    with running(configuration, make) as engine, engine.connect() as client, engine.connect() as other:
        start = time.monotonic()
        client.send(b"close")
        assert everything(client) == b"bye"
        until(lambda: engine.row.connections == 1)
        assert time.monotonic() - start < 1
        other.send(b"linger")
        assert everything(other) == b"bye"
        until(lambda: engine.row.connections == 0, 5)


def test_a_thread_of_the_test_is_one_of_the_kernels(configuration):
    """Guards the tests above: under gevent a patched thread would prove nothing."""

    def make(worker):
        def handler(connection):
            yield RECV
            seen = []
            in_thread(lambda: seen.append(original("threading", "get_native_id")()))
            while not seen:
                connection.deadline = time.monotonic() + 0.01
                yield SLEEP
            connection.write(b"%d" % (seen[0] != threading.get_native_id()))
            yield DONE

        return handler

    with running(configuration, make) as engine, engine.connect() as client:
        client.send(b"?")
        assert everything(client) == b"1"
