"""Writing: progress, resets in the middle, files. On every engine."""

from __future__ import annotations

import time

import pytest
from tests.engines.handlers import (
    DATA,
    everything,
    exactly,
    open_file,
    reset,
    slow_client,
    small_buffers,
)
from tests.engines.harness import running, until

from stoker.connection import DONE, DRAIN, RECV, SLEEP, FileSlice


def test_a_reader_that_takes_a_little_all_the_time_lives(configuration):
    def make(worker):
        def handler(connection):
            small_buffers(connection)
            connection.write(DATA[:400_000])
            yield DONE

        return handler

    with running(configuration, make, write_timeout=0.5) as engine, slow_client(engine.address) as client:
        got, start = b"", time.monotonic()
        while time.monotonic() - start < 1.5:
            got += exactly(client, 6000)
            time.sleep(0.04)
        assert len(got) < 400_000
        assert got + everything(client) == DATA[:400_000]


def test_a_reader_that_takes_nothing_is_given_up_at_the_write_timeout(configuration, reports):
    def make(worker):
        def handler(connection):
            small_buffers(connection)
            start = time.monotonic()
            try:
                while True:
                    connection.write(DATA[:100_000])
                    yield DRAIN
            finally:
                reports.say("failed", connection.failure, time.monotonic() - start)

        return handler

    with running(configuration, make, write_timeout=0.5) as engine, slow_client(engine.address):
        failure, seconds = reports.expect("failed")
        assert "took nothing" in failure
        # The time begins anew with what the client's kernel still takes at first.
        assert 0.5 <= seconds < 2.5
        until(lambda: engine.row.connections == 0)


@pytest.mark.parametrize("where", ["sending", "receiving", "sleeping"])
def test_a_reset_closes_the_handler_with_a_failure(configuration, reports, where):
    def make(worker):
        def handler(connection):
            small_buffers(connection)
            connection.deadline = time.monotonic() + 30
            try:
                connection.write(b"hello")
                yield RECV
                if where == "sleeping":
                    yield SLEEP
                while where == "sending":
                    connection.write(DATA[:100_000])
                    yield DRAIN
                yield RECV
            finally:
                reports.say("failed", connection.failure)

        return handler

    with running(configuration, make) as engine:
        before = engine.descriptors()
        client = engine.connect()
        assert client.recv(5) == b"hello"
        client.send(b"x")
        if where == "sending":
            client.recv(100)
        else:
            time.sleep(0.05)
        reset(client)
        assert reports.expect("failed", 5) != [""]
        until(lambda: engine.row.connections == 0)
        until(lambda: engine.descriptors() == before, what="the descriptors' return")


def test_files_and_bytes_go_out_in_order(configuration, tmp_path):
    path = tmp_path / "data"
    path.write_bytes(DATA)

    def make(worker):
        def handler(connection):
            for number in range(3):
                connection.write(b"[%d" % number)
                connection.send_file(FileSlice(open_file(path), number * 1000, 1_000_000))
                connection.write(b"|")
                connection.send_file(FileSlice(open_file(path), 5, 0))
                connection.send_file(FileSlice(open_file(path), 7, 11))
                connection.write(b"]")
                yield DRAIN
            yield DONE

        return handler

    with running(configuration, make) as engine:
        before = engine.descriptors()
        for _ in range(2):
            with slow_client(engine.address) as client:
                assert everything(client) == b"".join(
                    b"[%d%s|%s]" % (number, DATA[number * 1000 : number * 1000 + 1_000_000], DATA[7:18])
                    for number in range(3)
                )
        until(lambda: engine.row.connections == 0)
        until(lambda: engine.descriptors() == before, what="the descriptors' return")


@pytest.mark.parametrize("end", ["reset", "short"])
def test_a_file_that_cannot_be_sent_to_its_end_is_closed(configuration, reports, tmp_path, end):
    path = tmp_path / "data"
    path.write_bytes(DATA)

    def make(worker):
        def handler(connection):
            if end == "reset":
                small_buffers(connection)
            try:
                connection.send_file(FileSlice(open_file(path), 1000 if end == "short" else 0, len(DATA)))
                connection.send_file(FileSlice(open_file(path), 0, len(DATA)))
                yield RECV
            finally:
                reports.say("failed", connection.failure)

        return handler

    with running(configuration, make) as engine:
        before = engine.descriptors()
        client = engine.connect()
        exactly(client, 10)
        if end == "reset":
            reset(client)
        else:
            assert everything(client) == DATA[1010:]
            client.close()
        [failure] = reports.expect("failed")
        assert failure
        if end == "short":
            assert "shorter" in failure
        until(lambda: engine.row.connections == 0)
        until(lambda: engine.descriptors() == before, what="the descriptors' return")
