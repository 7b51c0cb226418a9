"""Raw TCP handlers: each style on each engine."""

from __future__ import annotations

import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.apps import handlers
from tests.apps.handlers import BEGUN, FINALLY, NOTED, PATTERN, STYLES, counters, in_style, log_to, site_of
from tests.engines.harness import CONFIGURATIONS, Running, running, until

CASES = [(configuration, style) for configuration in CONFIGURATIONS for style in STYLES]


class Server:
    """An engine that serves `handlers.commands` in one style."""

    def __init__(self, engine: Running, log: Path) -> None:
        self.engine = engine
        self.log = log

    def ask(self, command: str, data: bytes = b"") -> socket.socket:
        client = self.engine.connect()
        client.sendall(command.encode() + b"\n" + data)
        return client


class Servers:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stack = ExitStack()
        self.running: dict[tuple[str, str], Server] = {}

    def __getitem__(self, case: tuple[str, str]) -> Server:
        if case not in self.running:
            log = self.folder / "-".join(case)
            engine = running(case[0], site_of(in_style(handlers.commands, case[1])), log_to(log))
            self.running[case] = Server(self.stack.enter_context(engine), log)
        return self.running[case]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = Servers(tmp_path_factory.mktemp("tcp"))
    with servers.stack:
        yield servers


@pytest.fixture(params=CASES, ids="-".join)
def server(request: pytest.FixtureRequest, servers: Servers) -> Server:
    server = servers[request.param]
    until(lambda: counters[FINALLY] == counters[BEGUN], what="the end of what the last test began")
    counters.clear()
    return server


def rest(client: socket.socket) -> bytes:
    """All that still comes."""
    data = bytearray()
    while piece := client.recv(1 << 16):
        data += piece
    client.close()
    return bytes(data)


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def exactly(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = client.recv(count - len(data))
        assert piece, data
        data += piece
    return data


def test_echo_and_half_close(server: Server) -> None:
    client = server.ask("echo")
    for size in (1, 1000, 50_000):
        message = PATTERN[:size]
        client.sendall(message)
        assert exactly(client, size) == message
    client.shutdown(socket.SHUT_WR)
    assert rest(client) == b"the end"
    until(lambda: counters[FINALLY] == 1)


def test_lines_and_small_pieces(server: Server) -> None:
    client = server.ask("lines", b"a\nbcd\n\n" + b"x" * 99 + b"\nlast")
    client.shutdown(socket.SHUT_WR)
    assert rest(client) == b"2\n4\n1\n100\n4\n"
    client = server.ask("lines", b"ok\n" + b"x" * 101)
    assert rest(client) == b"3\n"
    client = server.ask("small", b"abcdefgh")
    client.shutdown(socket.SHUT_WR)
    assert rest(client).replace(b"|", b"") == b"abcdefgh"


def test_big_transfer_to_a_slow_reader(server: Server) -> None:
    client = server.engine.connect()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.sendall(b"big 200\n")
    until(lambda: counters[BEGUN] == 1)
    other = server.ask("echo", b"meanwhile")  # a client that does not read holds nobody else up
    assert exactly(other, 9) == b"meanwhile"
    other.close()
    data = rest(client)
    assert len(data) == 200 * len(PATTERN)
    assert data == PATTERN * 200


def test_sendfile(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "data"
    content = PATTERN * 40
    path.write_bytes(content)
    assert rest(server.ask(f"file {path} 1000 {len(content) - 3000}")) == content[1000:-2000] + b"=%d" % (
        len(content) - 3000
    )
    assert f"of a file of {len(content)} bytes".encode() in rest(server.ask(f"nofile {path}"))


def test_sleep(server: Server) -> None:
    clients = [server.ask("sleep") for _ in range(10)]
    began = time.monotonic()
    for client in clients:
        assert 0.19 <= float(rest(client)) < 5
    assert time.monotonic() - began < 1.9  # they slept side by side


def test_timeout_of_a_receive(server: Server) -> None:
    client = server.ask("timeout")
    assert exactly(client, 7) == b"timeout"
    client.sendall(b"then")
    assert rest(client) == b"then"
    before = len(server.log.read_text())
    assert rest(server.ask("impatient")) == b""
    until(lambda: counters[FINALLY] == 2)
    assert "Traceback" not in server.log.read_text()[before:]  # a client that says nothing is no failure of ours


def test_an_exception_is_logged_and_the_connection_closed(server: Server) -> None:
    before = len(server.log.read_text())
    assert rest(server.ask("fail")) == b"begun "
    until(lambda: "the handler's own fault" in server.log.read_text()[before:])
    text = server.log.read_text()[before:]
    assert "Traceback" in text
    assert "'commands' failed" in text
    assert counters[FINALLY] == 1


def test_post_from_a_thread(server: Server) -> None:
    client = server.ask("post")
    assert exactly(client, 9) == b"<0><1><2>"
    client.sendall(b"and an echo")
    assert exactly(client, 11) == b"and an echo"
    client.close()
    assert rest(server.ask("post-sleep")) == b"<0><1><2>slept"


def test_close(server: Server) -> None:
    assert rest(server.ask("close")) == b"bye"
    until(lambda: counters[FINALLY] == 1)
    assert counters[NOTED] == 2


@pytest.mark.parametrize("command", ["echo", "flood", "long-sleep"])
def test_a_client_that_leaves(server: Server, command: str) -> None:
    client = server.ask(command)
    until(lambda: counters[BEGUN] == 1)
    if command == "long-sleep":
        exactly(client, 6)
    if command == "flood":
        exactly(client, 100_000)
    before = len(server.log.read_text())
    reset(client)
    until(lambda: counters[FINALLY] == 1, what="the handler's finally")
    assert "Traceback" not in server.log.read_text()[before:]


def test_names_and_types(server: Server) -> None:
    client = server.ask("names")
    expected = f"{client.getsockname()[1]} {client.getpeername()[1]}"
    assert rest(client).decode() == expected
    assert rest(server.ask("wrong")) == b"send() needs bytes, not str"


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_stop(case: tuple[str, str]) -> None:
    """A stop ends what waits for its client, and lets go on what does not."""
    counters.clear()
    with running(case[0], site_of(in_style(handlers.commands, case[1]))) as engine:
        server = Server(engine, Path())
        waiting = server.ask("echo", b"x")
        assert exactly(waiting, 1) == b"x"
        slow = server.engine.connect()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        slow.sendall(b"big 100\n")
        until(lambda: counters[BEGUN] == 2)
        engine.tell(signal.SIGTERM)
        assert rest(waiting) == b"the end"
        assert len(rest(slow)) == 100 * len(PATTERN)
        assert engine.wait() == 0
    assert counters[FINALLY] == 2


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_stop_at_once(case: tuple[str, str]) -> None:
    counters.clear()
    with running(case[0], site_of(in_style(handlers.commands, case[1]))) as engine:
        clients = [Server(engine, Path()).ask(command) for command in ("long-sleep", "flood", "echo")]
        assert exactly(clients[0], 6) == b"asleep"
        until(lambda: counters[BEGUN] == 3)
        began = time.monotonic()
        engine.tell(signal.SIGINT)
        assert engine.wait() == 0
        assert time.monotonic() - began < 5
        for client in clients:
            client.close()
    if case[0] != "process":  # there the children are killed
        assert counters[FINALLY] == 3


# What is one engine's own.


def conversation(configuration: str, function: Any, log: Path, send: bytes = b"", **more: Any) -> bytes:
    """What one client gets from a handler."""
    with running(configuration, site_of(function), log_to(log), **more) as engine:
        client = engine.connect()
        client.sendall(send)
        data = rest(client)
        engine.tell(signal.SIGTERM)
        assert engine.wait() == 0
    return data


async def awaits_a_future(conn: Any) -> None:
    import asyncio

    loop = asyncio.new_event_loop()
    try:
        await loop.create_future()
    finally:
        loop.close()


async def awaits_asyncio_sleep(conn: Any) -> None:
    import asyncio

    await asyncio.sleep(0.01)


@pytest.mark.parametrize("configuration", [name for name in CONFIGURATIONS if name != "asyncio"])
@pytest.mark.parametrize("function", [awaits_a_future, awaits_asyncio_sleep])
def test_asyncio_elsewhere_is_an_error_that_names_both(configuration: str, function: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert conversation(configuration, function, log) == b""
    text = log.read_text()
    assert f"engine {configuration.partition('-')[0]!r}" in text
    assert "--engine asyncio" in text


async def uses_asyncio(conn: Any) -> None:
    import asyncio
    import contextvars

    import stoker

    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("mine")

    async def tell(number: int) -> None:
        await asyncio.sleep(0.05 * number)
        await stoker.sleep(0.01)
        await conn.send(f"{number} {variable.get()} ".encode())

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(tell(number))
        assert await conn.recv() == b"go"  # one receives while others send
    try:
        async with asyncio.timeout(0.05):
            await conn.recv()
    except TimeoutError:
        await conn.send(b"timeout ")
    receiving = asyncio.ensure_future(conn.recv())
    await asyncio.sleep(0)
    try:
        await conn.recv()
    except RuntimeError as error:
        await conn.send(str(error).encode())
    receiving.cancel()
    await asyncio.wait([receiving])
    assert asyncio.current_task() is not None


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_asyncio_on_its_own_engine(loop: str, tmp_path: Path) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    log = tmp_path / "log"
    data = conversation("asyncio", uses_asyncio, log, b"go", loop=loop)
    assert data == b"0 mine 1 mine 2 mine timeout recv(): another Task is receiving already", log.read_text()


async def spawns(conn: Any) -> None:
    import stoker

    order: list[int] = []

    async def work(number: int) -> int:
        for _ in range(3):
            order.append(number)
            await stoker.sleep(0)
        await stoker.sleep(0.02 * number)
        if number == 3:
            raise KeyError(number)
        return number * 10

    async def boss() -> int:
        inner = stoker.spawn(work, 4)
        return (await stoker.join(inner)) + 1

    tasks = [stoker.spawn(work, number) for number in range(4)]
    chief = stoker.spawn(boss)
    results = []
    for task in tasks[:3]:
        results.append(await stoker.join(task))
    try:
        await stoker.join(tasks[3])
    except KeyError:
        results.append("KeyError")
    results.append(await stoker.join(chief))
    results.append(await stoker.join(chief))
    results.append((order[:4] == [0, 1, 2, 3] and sorted(order[4:9]) == [0, 1, 2, 3, 4]) or order)
    await conn.send(repr(results).encode())


SPAWNING = [(engine, style) for engine in ("generator", "greenlet", "gevent") for style in STYLES]
SPAWNING.remove(("generator", "plain"))


def nested_in_style(function: Any, style: str) -> Any:
    return in_style(function, style)


@pytest.mark.parametrize("case", SPAWNING, ids="-".join)
def test_spawn_and_join(case: tuple[str, str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    data = conversation(case[0], in_style(spawns, case[1]), log)
    assert data == b"[0, 10, 20, 'KeyError', 41, 41, True]", log.read_text()


@pytest.mark.parametrize(
    "configuration", [name for name in CONFIGURATIONS if name not in ("generator", "greenlet", "gevent")]
)
def test_spawn_elsewhere_names_the_engine(configuration: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert conversation(configuration, spawns, log) == b""
    assert f"engine {configuration.partition('-')[0]!r} has no spawn()" in log.read_text()


def test_spawn_of_what_could_not_wait(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert conversation("generator", in_style(spawns, "plain"), log) == b""
    assert "engine 'generator' spawns generators and coroutines" in log.read_text()


async def forgets(conn: Any) -> None:
    conn.send(b"never sent")
    await conn.send(b"sent")
    operation = conn.send(b" once")
    await operation
    try:
        await operation
    except RuntimeError as error:
        await conn.send(b": " + str(error).encode())


@pytest.mark.parametrize("style", ["generator", "async"])
@pytest.mark.parametrize("configuration", ["epoll", "asyncio"])
def test_an_operation_that_is_forgotten_or_used_twice(configuration: str, style: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    data = conversation(configuration, in_style(forgets, style), log)
    assert data == b"sent once: send(): an operation can be yielded or awaited once only"
    assert "send() was called, but neither yielded nor awaited" in log.read_text()


def lends(conn: Any) -> None:
    said: list[str] = []

    def use() -> None:
        try:
            conn.send(b"x")
        except RuntimeError as error:
            said.append(str(error))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    conn.send(said[0].encode())


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_a_connection_belongs_to_its_handler(configuration: str, tmp_path: Path) -> None:
    assert b"conn.post()" in conversation(configuration, lends, tmp_path / "log")


def returns_a_generator(conn: Any) -> Any:
    return (piece for piece in ())


async def numbers(conn: Any) -> Any:
    yield 1


def test_what_is_no_handler(tmp_path: Path) -> None:
    from stoker.apps import tcp
    from stoker.errors import BootError

    log = tmp_path / "log"
    assert conversation("epoll", returns_a_generator, log) == b""
    assert "returned a generator instead of serving" in log.read_text()
    with pytest.raises(BootError, match="async generator"):
        tcp.site(None, numbers, lambda: None)


def test_posts_to_a_client_that_does_not_read_are_refused_in_the_end(tmp_path: Path) -> None:
    def flood(conn: Any) -> None:
        refused = threading.Event()

        def push() -> None:
            while conn.post(PATTERN):
                pass
            refused.set()

        threading.Thread(target=push, daemon=True).start()
        conn.recv()
        conn.send(b"refused" if refused.is_set() else b"taken")

    with running("thread", site_of(flood)) as engine:
        client = engine.connect()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        time.sleep(0.3)
        client.sendall(b"x")
        data = rest(client)
        assert data.endswith(b"refused")
        assert len(data) < 16 << 20
