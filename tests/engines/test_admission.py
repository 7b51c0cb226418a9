"""Who may come in: the cap, what happens at it, and what happens without descriptors. On every engine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import socket
import time

from tests.engines.handlers import echo, ended, exactly, idle_echo, reset, silent
from tests.engines.harness import running, until

from stoker.connection import BUSY, DONE, RECV

FULL = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def talk(client, data=b"ping"):
    client.send(data)
    return exactly(client, len(data)) == data


def test_a_thousand_idle_connections_beside_live_traffic(configuration):
    count = 900 if configuration == "select" else 1000
    with running(configuration, echo) as engine, contextlib.ExitStack() as stack:
        live = stack.enter_context(engine.connect())
        for number in range(count):
            client = stack.enter_context(socket.socket())
            client.connect(engine.address)
            if number % 100 == 99:
                assert talk(live)
        until(lambda: engine.row.connections == count + 1, 60)  # a thousand forks, on process
        start = time.monotonic()
        for _ in range(50):
            assert talk(live)
        assert time.monotonic() - start < 3
        assert talk(client)  # the last of the idle ones
        until(lambda: engine.row.accepted == count + 1)


def test_at_the_cap_the_connection_that_is_idle_longest_goes_first(configuration):
    with running(configuration, idle_echo, max_connections=3) as engine, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(engine.connect()) for _ in range(3)]
        for number in (2, 0, 1, 2):  # 0 has been idle longest
            assert talk(clients[number])
            time.sleep(0.01)
        late = stack.enter_context(engine.connect())
        assert talk(late)
        assert ended(clients[0])
        assert talk(clients[1])
        later = stack.enter_context(engine.connect())
        assert talk(later)
        assert ended(clients[2])
        assert talk(clients[1])
        assert talk(late)
        assert engine.row.refused == 0


def test_at_the_cap_new_connections_wait_until_one_ends(configuration):
    with running(configuration, idle_echo, max_connections=2) as engine, contextlib.ExitStack() as stack:
        one, two = (stack.enter_context(engine.connect()) for _ in range(2))
        assert talk(one, b"busy")
        assert talk(two, b"busy")
        waiting = stack.enter_context(engine.connect())
        waiting.send(b"hello")
        assert silent(waiting)
        before, start = engine.cpu(), time.monotonic()
        assert silent(waiting, 0.4)
        assert engine.cpu() - before < 0.3 * (time.monotonic() - start)
        assert talk(two)
        one.close()
        assert exactly(waiting, 5) == b"hello"


def test_at_the_cap_who_becomes_idle_makes_room(configuration):
    with running(configuration, idle_echo, max_connections=2) as engine, contextlib.ExitStack() as stack:
        one, two = (stack.enter_context(engine.connect()) for _ in range(2))
        assert talk(one, b"busy")
        assert talk(two, b"busy")
        waiting = stack.enter_context(engine.connect())
        waiting.send(b"hello")
        assert silent(waiting)
        assert talk(one, b"idle")
        assert exactly(waiting, 5) == b"hello"
        assert ended(one)
        assert talk(two)


def test_at_the_cap_on_overload_close(configuration):
    with (
        running(configuration, idle_echo, max_connections=2, on_overload="close") as engine,
        contextlib.ExitStack() as stack,
    ):
        one, two = (stack.enter_context(engine.connect()) for _ in range(2))
        assert talk(one, b"busy")
        assert talk(two, b"busy")
        for _ in range(3):
            assert ended(stack.enter_context(engine.connect()))
        until(lambda: engine.row.refused == 3)
        assert talk(one)
        two.close()
        until(lambda: engine.row.connections == 1)
        assert talk(stack.enter_context(engine.connect()))


def test_at_the_cap_on_overload_503(configuration):
    def setup(worker):
        worker.full_answer = FULL

    with (
        running(configuration, idle_echo, setup, max_connections=1, on_overload="503") as engine,
        contextlib.ExitStack() as stack,
    ):
        one = stack.enter_context(engine.connect())
        assert talk(one, b"busy")
        for _ in range(3):
            client = stack.enter_context(engine.connect())
            client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            assert exactly(client, len(FULL) + 1) == FULL
        assert engine.row.refused == 3
        assert talk(one, b"idle")
        # From now on one is idle, and goes; its process may tell so a moment later.
        until(lambda: talk(stack.enter_context(engine.connect())))
        assert ended(one)


def test_connections_of_one_address_are_limited(configuration):
    with running(configuration, echo, max_connections_per_ip=2) as engine, contextlib.ExitStack() as stack:
        one, two = (stack.enter_context(engine.connect()) for _ in range(2))
        assert talk(one)
        assert talk(two)
        assert ended(stack.enter_context(engine.connect()))
        assert engine.row.refused == 1
        other = stack.enter_context(socket.socket())
        other.bind(("127.0.0.2", 0))
        other.settimeout(10)
        other.connect(engine.address)
        assert talk(other)
        one.close()
        until(lambda: engine.row.connections == 2)
        assert talk(stack.enter_context(engine.connect()))


def test_out_of_descriptors_accepting_pauses_and_recovers(configuration):
    def make(worker):
        limited = []

        def handler(connection):
            if not limited:
                limited.append(True)
                highest = max(int(name) for name in os.listdir("/proc/self/fd"))
                _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
                resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 4, hard))
            while data := (yield RECV):
                connection.write(data)

        return handler

    with running(configuration, make) as engine, contextlib.ExitStack() as stack:
        first = stack.enter_context(engine.connect())
        assert talk(first)
        clients = [stack.enter_context(engine.connect()) for _ in range(12)]
        for client in clients:
            client.send(b"ping")
        served = set()
        if configuration != "process":  # there each has its own table of descriptors, and the parent's stays as it is
            assert talk(first)
            time.sleep(0.3)
            before, start = engine.cpu(), time.monotonic()
            for _ in range(20):
                assert talk(first)
                time.sleep(0.01)
            assert engine.cpu() - before < 0.5 * (time.monotonic() - start)
        deadline = time.monotonic() + 15
        while len(served) < 12:
            assert time.monotonic() < deadline
            for number, client in enumerate(clients):
                if number not in served and not silent(client, 0.01):
                    assert exactly(client, 4) == b"ping"
                    client.close()
                    served.add(number)
        assert talk(first)


def high_numbers(free):
    """Leave so many descriptors free below 1,024."""
    last = os.open("/dev/null", os.O_RDONLY)
    while last < 1023:
        last = os.dup(last)
    for number in range(1024 - free, 1024):
        os.close(number)


def test_descriptors_past_1023(configuration):
    """Only select cannot serve them: it refuses them, counts them, and serves the others on."""

    def make(worker):
        filled = []

        def handler(connection):
            if not filled:
                filled.append(True)
                high_numbers(5)
            while data := (yield RECV):
                connection.write(data)

        return handler

    with running(configuration, make) as engine, contextlib.ExitStack() as stack:
        first = stack.enter_context(engine.connect())
        assert talk(first)
        clients = [stack.enter_context(engine.connect()) for _ in range(9)]
        for client in clients:
            with contextlib.suppress(ConnectionError):
                client.send(b"ping")
        answers = []
        for client in clients:
            try:
                answers.append(exactly(client, 4))
            except ConnectionResetError:
                answers.append(b"")
        if configuration == "select":
            assert answers.count(b"ping") == 5
            assert answers.count(b"") == 4
            assert engine.row.refused == 4
            clients[answers.index(b"ping")].close()
            until(lambda: engine.row.connections == 5)
            assert talk(stack.enter_context(engine.connect()))
        else:
            assert answers == [b"ping"] * 9
            assert engine.row.refused == 0
        assert talk(first)


def test_a_listener_with_a_high_number_is_served(configuration):
    def setup(worker):
        [listener] = worker.listeners
        low = listener.sock
        high_numbers(200)
        listener.sock = socket.socket(fileno=fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 1100))
        low.close()
        assert listener.fileno() >= 1024

    with running(configuration, echo, setup) as engine, engine.connect() as client:
        assert talk(client)


def test_nothing_leaks(configuration):
    """After connections of every kind and end: as many descriptors, threads and children as before."""

    def make(worker):
        def handler(connection):
            connection.wakeable = True
            connection.wake()
            connection.rest = BUSY
            connection.deadline = time.monotonic() + 30
            while True:
                data = yield RECV
                if data == b"raise":
                    raise ValueError("for the test")
                if data == b"large":
                    connection.write(bytes(3_000_000))
                elif isinstance(data, bytes):
                    if not data:
                        break
                    connection.write(data)
            yield DONE

        return handler

    def round_of_all(engine):
        for kind in (b"close", b"reset", b"raise", b"large", b"silent", b"half"):
            client = engine.connect()
            if kind != b"silent":
                client.send(kind)
                client.recv(10)
            if kind == b"half":
                client.shutdown(socket.SHUT_WR)
                assert client.recv(10) == b""
            if kind in (b"reset", b"large"):
                reset(client)
            client.close()
        until(lambda: engine.row.connections == 0)

    def state(engine):
        return engine.descriptors(), engine.threads(), len(engine.children())

    with running(configuration, make) as engine:
        round_of_all(engine)
        until(lambda: engine.threads() == 1 or configuration == "gevent")
        before = state(engine)
        for _ in range(5):
            round_of_all(engine)
        until(lambda: state(engine) == before, what=f"the return to {before}, it is {state(engine)}: that")
        assert engine.row.accepted == 36
