"""The raw TCP examples, each run by the commands that it begins with."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from tests.examples.conftest import ROOT, Server, commands

from stoker.engines import REGISTRY

ENGINES = [*([name] for name in REGISTRY), ["epoll", "--trigger", "edge"]]
ECHOES = [
    command
    for file in ("echo", "classic/process", "classic/thread", "classic/nonblocking", "classic/select", "classic/poll",
                 "classic/epoll", "classic/gevent_tcp")
    for command in commands(f"{file}.py")
]  # fmt: skip
STYLES = ["handle", "generate", "coroutine"]


class Peer:
    """A client that reads lines."""

    def __init__(self, server: Server) -> None:
        self.sock = server.connect()
        self.reader = self.sock.makefile("rb")

    def say(self, text: str) -> None:
        self.sock.sendall(text.encode() + b"\n")

    def line(self) -> str:
        return self.reader.readline().decode().rstrip("\n")

    def rest(self) -> str:
        return self.reader.read().decode()

    def close(self) -> None:
        self.reader.close()
        self.sock.close()


def exactly(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = client.recv(count - len(data))
        assert piece, data
        data += piece
    return data


def echo(server: Server) -> None:
    """Several clients at once; one half-closes and still gets its answer; one resets."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(5)]
        for number, client in enumerate(clients):
            client.sendall(b"hello %d" % number)
        for number, client in enumerate(clients):
            assert exactly(client, 7) == b"hello %d" % number
        data = bytes(range(256)) * 400
        clients[0].sendall(data)
        clients[0].shutdown(socket.SHUT_WR)
        assert exactly(clients[0], len(data)) == data
        assert clients[0].recv(1) == b""
        clients[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        clients[1].close()
        clients[2].sendall(b"still there")
        assert exactly(clients[2], 11) == b"still there"


@pytest.mark.parametrize("command", ECHOES)
def test_echo(serve: Callable[..., Server], command: str) -> None:
    server = serve(command)
    echo(server)
    server.stop()
    assert "Traceback" not in server.output


@pytest.mark.parametrize("engine", ENGINES, ids=" ".join)
def test_three_styles_on_every_engine(serve: Callable[..., Server], engine: list[str]) -> None:
    for style in STYLES:
        server = serve(f"stoker serve --tcp examples.echo:{style}", "--engine", *engine)
        echo(server)
        server.stop()
        assert "Traceback" not in server.output


@pytest.mark.parametrize("name", ["process", "thread", "nonblocking", "select", "poll", "epoll", "gevent_tcp"])
def test_classic_servers_print_what_they_receive(serve: Callable[..., Server], name: str) -> None:
    server = serve(commands(f"classic/{name}.py")[0])
    with server.connect() as client:
        client.sendall(b"hello")
        assert exactly(client, 5) == b"hello"
    server.says("b'hello'")


def test_a_key_stops_the_select_server() -> None:
    """In the foreground of a terminal: q, then Enter."""
    [command] = commands("classic/select.py")
    words = [sys.executable, "-m", "stoker", *shlex.split(command)[1:], "--bind", "127.0.0.1:0"]
    code = f"import fcntl, os, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv({words[0]!r}, {words!r})"
    ours, theirs = pty.openpty()
    shown = b""

    def until(text: bytes) -> None:
        nonlocal shown
        while text not in shown:
            assert select.select([ours], [], [], 20)[0], shown
            shown += os.read(ours, 65536)

    try:
        with subprocess.Popen(
            [words[0], "-c", code], cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        ) as server:  # fmt: skip
            try:
                until(b" is ready")
                os.write(ours, b"h\n")
                until(b"q graceful stop")
                os.write(ours, b"q\n")
                until(b"stopped")
                assert server.wait(20) == 0
            finally:
                server.kill()
    finally:
        os.close(ours)
        os.close(theirs)


def test_process_has_a_child_for_each(serve: Callable[..., Server]) -> None:
    server = serve(*commands("classic/process.py"))
    with server.connect() as first, server.connect() as second:
        for client in (first, second):
            client.sendall(b"x")
            assert exactly(client, 1) == b"x"
        found = re.findall(r"process (\d+), a child of (\d+)", server.output)
    assert len({child for child, _ in found}) == 2
    assert len({parent for _, parent in found}) == 1


@pytest.mark.parametrize("name", ["generator", "greenlet"])
def test_a_and_b_take_turns(serve: Callable[..., Server], name: str) -> None:
    server = serve(*commands(f"classic/{name}.py"))
    first, second = Peer(server), Peer(server)
    start = time.monotonic()
    for peer in (first, second):
        assert peer.rest() == "--- A ---\n--- B ---\n" * 3
        peer.close()
    assert 1.4 < time.monotonic() - start < 2.8  # both at once


def test_gevent_spawn_in_order_and_in_turns(serve: Callable[..., Server]) -> None:
    server = serve(*commands("classic/gevent_spawn.py"))
    peer = Peer(server)
    assert peer.rest() == "without waiting: a0 a1 a2 b0 b1 b2 c0 c1 c2\nwith waiting: a0 b0 c0 a1 b1 c1 a2 b2 c2\n"
    peer.close()


def test_gevent_downloads_take_their_time_together(serve: Callable[..., Server]) -> None:
    server = serve(*commands("classic/gevent_download.py"))
    peer = Peer(server)
    peer.say("")
    *said, last = peer.rest().splitlines()
    peer.close()
    assert len([line for line in said if line.startswith("GET: http://127.0.0.1:")]) == 3
    assert {line.split()[0] for line in said[3:]} == {"1000", "20000", "300000"}
    seconds = float(re.fullmatch(r"3 downloads in ([\d.]+) s", last)[1])  # type: ignore[index]
    assert 0.5 <= seconds < 1.3


# The chat.


@pytest.fixture
def join(serve: Callable[..., Server]) -> Iterator[Callable[..., Peer]]:
    """Joins a chat on an engine, which is started for the first member."""
    servers: list[Server] = []

    def enter(name: str, *engine: str) -> Peer:
        if not servers:
            servers.append(serve(*commands("chat.py"), *(("--engine", *engine) if engine else ())))
        peer = Peer(servers[0])
        servers[0].at_end.append(peer.close)
        assert peer.line() == "* your name?"
        peer.say(name)
        return peer

    return enter


@pytest.mark.parametrize("engine", [one for one in ENGINES if one != ["process"]], ids=" ".join)
def test_chat(join: Callable[..., Peer], engine: list[str]) -> None:
    ann = join("ann", *engine)
    assert ann.line() == "* ann has come"
    bob = join("bob")
    assert [peer.line() for peer in (ann, bob)] == ["* bob has come"] * 2
    ann.say("hello \x1b[31mworld")
    assert bob.line() == "ann: hello [31mworld"  # the escape character is gone
    bob.say("你好")
    assert ann.line() == "bob: 你好"
    ann.say("/who")
    assert ann.line() == "* here: ann, bob"
    bob.say("/quit")
    assert bob.line() == "* bob has left" or bob.rest() == ""
    assert ann.line() == "* bob has left"


def test_chat_names_are_asked_for_until_they_are_good(join: Callable[..., Peer]) -> None:
    ann = join("ann")
    assert ann.line() == "* ann has come"
    second = join("ann")
    assert second.line() == "* there is one of that name already; another?"
    second.say("x" * 21)
    assert second.line() == "* 1 to 20 characters, please"
    second.say("")
    assert second.line() == "* 1 to 20 characters, please"
    second.say("bob")
    assert second.line() == "* bob has come"


def test_chat_notices_one_who_resets(join: Callable[..., Peer]) -> None:
    ann = join("ann")
    assert ann.line() == "* ann has come"
    bob = join("bob")
    assert ann.line() == "* bob has come"
    bob.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    bob.close()
    assert ann.line() == "* bob has left"


@pytest.mark.parametrize("engine", [["epoll"], ["thread"], ["generator"], ["gevent"]], ids=" ".join)
def test_chat_waits_for_no_slow_member(join: Callable[..., Peer], engine: list[str]) -> None:
    """Eve reads nothing while Ann says a lot and Bob hears all of it; then Eve is told what she has missed."""
    ann = join("ann", *engine)
    assert ann.line() == "* ann has come"  # only then the next one: on threads they might overtake each other
    bob = join("bob")
    assert bob.line() == "* bob has come"
    eve = join("eve")
    assert bob.line() == "* eve has come"
    count, long = 4000, "x" * 3000
    for number in range(count):
        ann.say(f"{number} {long}")
        assert bob.line() == f"ann: {number} {long}"
    eve.say("I am back")
    heard = 0
    while not (line := eve.line()).startswith("* you have missed"):
        heard += line.startswith("ann: ")
    missed = int(line.split()[4])
    assert heard + missed == count
    assert missed > 0
    assert bob.line() == "eve: I am back"
