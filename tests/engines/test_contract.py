"""The operations of the contract: RECV, DRAIN, SLEEP, and wake(). Each on every engine."""

from __future__ import annotations

import contextlib
import hashlib
import select
import socket
import threading
import time

import pytest
from tests.engines.handlers import (
    BLOCKING,
    DATA,
    PRECISE,
    answer_name,
    best_of,
    echo,
    everything,
    exactly,
    in_thread,
    pause,
    silent,
    slow_client,
    small_buffers,
)
from tests.engines.harness import running

from stoker.connection import DONE, DRAIN, IDLE, INFINITY, RECV, SLEEP, WAITING

# RECV.


def test_messages_in_one_segment_are_answered_in_order(configuration):
    def make(worker):
        def handler(connection):
            rest = b""
            while data := (yield RECV):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    connection.write(b"<" + line + b">")
            yield DONE

        return handler

    with running(configuration, make) as engine, engine.connect() as client:
        client.sendall(b"".join(b"%d\n" % number for number in range(2000)))
        expected = b"".join(b"<%d>" % number for number in range(2000))
        assert exactly(client, len(expected)) == expected
        for byte in b"one at a time\n":
            client.send(bytes([byte]))
        assert exactly(client, 15) == b"<one at a time>"


def test_what_is_queued_goes_out_before_a_receive_waits(configuration):
    def make(worker):
        def handler(connection):
            connection.write(b"hello ")
            connection.write(b"there")
            name = yield RECV
            connection.write(b"bye " + name)
            yield DONE

        return handler

    with running(configuration, make) as engine, engine.connect() as client:
        assert exactly(client, 11) == b"hello there"
        client.send(b"you")
        assert everything(client) == b"bye you"


def test_a_half_closed_client_is_still_answered(configuration):
    def make(worker):
        def handler(connection):
            count = 0
            while data := (yield RECV):
                count += len(data)
            assert (yield RECV) == b""  # the end stays the end
            connection.write(b"%d;" % count)
            connection.write(DATA)
            yield DONE

        return handler

    with running(configuration, make) as engine, engine.connect() as client:
        client.sendall(DATA[:3_000_000])
        client.shutdown(socket.SHUT_WR)
        assert everything(client) == b"3000000;" + DATA


def test_megabytes_both_ways_at_once(configuration):
    with running(configuration, echo) as engine, engine.connect() as client:
        got = hashlib.sha256()
        client.setblocking(False)
        sent = received = 0
        deadline = time.monotonic() + 20
        while received < len(DATA):
            assert time.monotonic() < deadline
            readable, writable, _ = select.select([client], [client] if sent < len(DATA) else [], [], 10)
            if writable:
                sent += client.send(DATA[sent : sent + 100_000])
            if readable:
                data = client.recv(100_000)
                assert data
                got.update(data)
                received += len(data)
        assert got.digest() == hashlib.sha256(DATA).digest()


def test_a_deadline_is_answered_with_none_in_time(configuration):
    def make(worker):
        def handler(connection):
            connection.rest = WAITING
            while True:
                connection.deadline = INFINITY
                if not (yield RECV):
                    break
                connection.deadline = start = time.monotonic() + 0.15
                answer = yield RECV
                connection.write(b"%s %.4f\n" % (repr(answer).encode(), time.monotonic() - start))
            yield DONE

        return handler

    with running(configuration, make) as engine, engine.connect() as client:

        def late():
            client.send(b"?")
            answer, seconds = client.recv(100).split()
            assert answer == b"None"
            assert float(seconds) >= 0
            return float(seconds)

        tick = 1.0 if configuration in BLOCKING else 0.0
        assert best_of(late, PRECISE + tick) <= PRECISE + tick


def test_a_deadline_that_has_passed_comes_before_data_except_when_idle(configuration):
    def make(worker):
        def handler(connection):
            yield RECV
            connection.write(b"!")
            connection.deadline = time.monotonic() + 0.1
            yield SLEEP
            late = yield RECV  # the deadline is over, though data is there
            connection.rest = IDLE
            read = yield RECV  # but a request that comes at the last moment is not thrown away
            connection.write(b"%r %r" % (late, read))
            yield DONE

        return handler

    with running(configuration, make) as engine, engine.connect() as client:
        client.send(b"?")
        assert client.recv(1) == b"!"
        client.send(b"data")
        assert everything(client) == b"None b'data'"


def test_a_drip_does_not_move_a_deadline(configuration):
    def make(worker):
        def handler(connection):
            yield RECV
            start = time.monotonic()
            connection.deadline = start + 0.4
            count = 0
            while (yield RECV) is not None:
                count += 1
            connection.write(b"%d %.4f" % (count, time.monotonic() - start))
            yield DONE

        return handler

    with running(configuration, make) as engine, engine.connect() as client:
        deadline = time.monotonic() + 5
        while not select.select([client], [], [], 0.03)[0]:
            client.send(b".")
            assert time.monotonic() < deadline
        count, seconds = client.recv(100).split()
        assert int(count) > 3
        assert 0.4 <= float(seconds) < 0.6


# SLEEP.


def test_sleep_is_precise_and_loses_no_data(configuration):
    def make(worker):
        def handler(connection):
            while data := (yield RECV):
                connection.deadline = wanted = time.monotonic() + 0.1
                assert (yield SLEEP) is None
                late = time.monotonic() - wanted
                connection.deadline = INFINITY
                while not data.endswith(b"b"):
                    data += yield RECV
                connection.write(b"%s %.4f" % (data, late))
            yield DONE

        return handler

    with running(configuration, make) as engine, engine.connect() as client:

        def late():
            client.send(b"a")
            time.sleep(0.02)
            client.send(b"b")
            text, seconds = client.recv(100).split()
            assert text == b"ab"
            assert float(seconds) >= 0
            return float(seconds)

        assert best_of(late, PRECISE) <= PRECISE


def test_a_sleep_whose_time_has_passed_is_over_at_once(configuration):
    def make(worker):
        def handler(connection):
            connection.deadline = time.monotonic() - 1
            answer = yield SLEEP
            connection.write(repr(answer).encode())
            yield DONE

        return handler

    with running(configuration, make) as engine, engine.connect() as client:
        assert everything(client) == b"None"


# DRAIN.


def test_drain_returns_when_the_queue_is_short_enough(configuration, reports):
    def make(worker):
        def handler(connection):
            small_buffers(connection)
            connection.low = 1_000_000
            connection.write(DATA)
            connection.write(DATA)
            assert (yield DRAIN) is None
            reports.say("low", connection.size)
            connection.low = 0
            yield DRAIN
            reports.say("empty", connection.size)
            yield DRAIN  # of an empty queue
            reports.say("again", connection.size)
            yield DONE

        return handler

    with running(configuration, make) as engine, slow_client(engine.address) as client:
        assert client.recv(1) == DATA[:1]
        time.sleep(0.1)
        assert reports.count("low") == 0
        assert everything(client) == (DATA + DATA)[1:]
        [size] = reports.expect("low")
        assert size <= 1_000_000
        assert reports.expect("empty") == [0]
        assert reports.expect("again") == [0]


def test_an_endless_response_starves_nobody(configuration):
    def make(worker):
        def handler(connection):
            data = yield RECV
            if data == b"endless":
                while True:
                    connection.write(DATA[:32768])
                    yield DRAIN
            while data:
                connection.write(data)
                data = yield RECV

        return handler

    with running(configuration, make) as engine, engine.connect() as greedy, engine.connect() as client:

        def read():
            with contextlib.suppress(ConnectionError):
                while greedy.recv(1 << 20):
                    pass

        greedy.send(b"endless")
        reader = threading.Thread(target=read)
        reader.start()
        start = time.monotonic()
        for _ in range(50):
            client.send(b"ping")
            assert client.recv(10) == b"ping"
        assert time.monotonic() - start < 5
        greedy.shutdown(socket.SHUT_RDWR)
        reader.join()


# wake().


def test_full_duplex_echo_and_a_message_every_100_ms(configuration):
    def make(worker):
        def handler(connection):
            connection.wakeable = True
            ticks = []
            going = [True]

            def beat():
                while going:
                    pause(0.1)
                    ticks.append(b"tick")
                    connection.wake()

            in_thread(beat)
            try:
                while True:
                    data = yield RECV
                    while ticks:
                        connection.write(ticks.pop())
                    if isinstance(data, bytes):
                        if not data:
                            break
                        connection.write(data)
            finally:
                going.clear()
            yield DONE

        return handler

    with running(configuration, make) as engine, engine.connect() as client:
        text, start, echoed = b"", time.monotonic(), 0
        while text.count(b"tick") < 8:
            client.send(b"echo")
            wanted = text.count(b"echo") + 1
            while text.count(b"echo") < wanted:
                text += client.recv(1000)
            echoed += 1
            time.sleep(0.005)
            assert time.monotonic() - start < 5
        assert 0.75 < time.monotonic() - start < 2.5
        assert echoed > 20
        assert text.replace(b"echo", b"").replace(b"tick", b"") == b""


def test_a_wake_before_the_wait_is_not_lost_and_calls_coalesce(configuration):
    def make(worker):
        def handler(connection):
            connection.wakeable = True
            connection.wake()
            connection.wake()
            first = yield RECV
            for _ in range(5):
                connection.wake()
            second = yield DRAIN
            connection.wake()
            connection.deadline = time.monotonic() + 30
            third = yield SLEEP
            connection.deadline = INFINITY
            names = [answer_name(answer) for answer in (first, second, third)]
            connection.write(repr(names).encode())
            data = yield RECV
            connection.write(repr(answer_name(data)).encode())
            yield DONE

        return handler

    with running(configuration, make) as engine, engine.connect() as client:
        assert exactly(client, 27) == b"['WOKEN', 'WOKEN', 'WOKEN']"
        assert silent(client)
        client.send(b"x")
        assert everything(client) == b"'x'"


@pytest.mark.parametrize("operation", [RECV, SLEEP, DRAIN])
def test_a_wake_from_another_thread_answers_a_wait(configuration, operation):
    def make(worker):
        def handler(connection):
            connection.wakeable = True
            small_buffers(connection)
            if operation == DRAIN:
                connection.low = 0
                connection.write(DATA[:1_000_000])
            connection.deadline = time.monotonic() + 30

            def wake():
                pause(0.1)
                for _ in range(50):
                    connection.wake()

            in_thread(wake)
            start = time.monotonic()
            answer = yield operation
            seconds = time.monotonic() - start
            while answer_name(answer) == "WOKEN" and (time.monotonic() - start) < 0.3:
                connection.deadline = time.monotonic() + 0.25
                answer = yield SLEEP
            connection.write(b"|%.4f" % seconds)
            yield DONE

        return handler

    def seconds():
        with slow_client(engine.address) as client:
            if operation == DRAIN:
                time.sleep(0.15)
            return float(everything(client).rpartition(b"|")[2])

    with running(configuration, make) as engine:
        assert best_of(seconds, 0.1 + PRECISE) <= 0.1 + PRECISE


def test_wakes_from_four_threads_are_never_lost(configuration):
    def make(worker):
        def handler(connection):
            connection.wakeable = True
            boxes = [[], [], [], []]

            def work(box):
                for number in range(300):
                    box.append(number)
                    connection.wake()
                    pause(0.0002)

            yield RECV
            for box in boxes:
                in_thread(lambda box=box: work(box))
            seen = 0
            connection.deadline = time.monotonic() + 20
            while seen < 1200 and (yield RECV) is not None:
                for box in boxes:
                    while box:
                        box.pop()
                        seen += 1
            connection.write(b"%d" % seen)
            yield DONE

        return handler

    with running(configuration, make) as engine, engine.connect(30) as client:
        while not select.select([client], [], [], 0.002)[0]:  # echo traffic goes on meanwhile
            client.send(b"x")
        assert client.recv(100) == b"1200"


def test_who_is_not_wakeable_is_never_answered_woken(configuration):
    def make(worker):
        def handler(connection):
            connection.wake()
            data = yield RECV
            connection.wake()
            connection.write(data)
            yield DONE

        return handler

    with running(configuration, make) as engine, engine.connect() as client:
        client.send(b"data")
        assert everything(client) == b"data"
