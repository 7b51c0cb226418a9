"""A raw TCP handler, written once as ``async def``, from which the other two styles are made.

The first line that a client sends says what it wants.
"""

from __future__ import annotations

import ast
import fcntl
import inspect
import itertools
import os
import textwrap
import threading
import time
from collections.abc import Callable
from typing import Any

import stoker

STYLES = ["plain", "generator", "async"]
PATTERN = bytes(range(256)) * 256  # 64 KiB


class Counters:
    """Shared with the engine's processes: each is a file that grows by a byte, which is atomic."""

    def __init__(self, number: int) -> None:
        self.fds = [os.memfd_create("counter", os.MFD_CLOEXEC) for _ in range(number)]
        for fd in self.fds:
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)

    def __getitem__(self, cell: int) -> int:
        return os.fstat(self.fds[cell]).st_size

    def clear(self) -> None:
        for fd in self.fds:
            os.ftruncate(fd, 0)


BEGUN, FINALLY, NOTED = range(3)
counters = Counters(3)


def count(cell: int) -> None:
    os.write(counters.fds[cell], b"1")


async def commands(conn: Any) -> None:
    count(BEGUN)
    try:
        command = (await conn.recv_line()).decode().split()
        if command[0] == "echo":
            while data := await conn.recv():
                await conn.send(data)
            await conn.send(b"the end")
        elif command[0] == "lines":
            while line := await conn.recv_line(100):
                await conn.send(str(len(line)).encode() + b"\n")
        elif command[0] == "small":
            while data := await conn.recv(3):
                await conn.send(data + b"|")
        elif command[0] == "big":
            for _ in range(int(command[1])):
                await conn.send(PATTERN)
        elif command[0] == "file":
            with open(command[1], "rb") as file:
                sent = await conn.sendfile(file, int(command[2]), int(command[3]))
            await conn.send(f"={sent}".encode())
        elif command[0] == "nofile":
            with open(command[1], "rb") as file:
                try:
                    await conn.sendfile(file, 10, 1 << 40)
                except ValueError as error:
                    await conn.send(str(error).encode())
        elif command[0] == "sleep":
            began = time.monotonic()
            await stoker.sleep(0.2)
            await conn.send(f"{time.monotonic() - began:.3f}".encode())
        elif command[0] == "timeout":
            try:
                await conn.recv(10, timeout=0.1)
            except TimeoutError:
                await conn.send(b"timeout")
            await conn.send(await conn.recv(10, timeout=5))
        elif command[0] == "impatient":
            await conn.recv(10, timeout=0.1)
        elif command[0] == "fail":
            await conn.send(b"begun ")
            raise LookupError("the handler's own fault")
        elif command[0] == "post":
            threading.Thread(target=push, args=(conn,), daemon=True).start()
            while data := await conn.recv():
                await conn.send(data)
        elif command[0] == "post-sleep":
            pusher = threading.Thread(target=push, args=(conn,), daemon=True)
            pusher.start()
            while pusher.is_alive():
                await stoker.sleep(0.05)
            await conn.send(b"slept")
        elif command[0] == "close":
            await conn.send(b"bye")
            await conn.close()
            await conn.close()
            rest = await conn.recv()
            try:
                await conn.send(b"more")
            except ValueError:
                count(NOTED)
            if rest == b"" and conn.post(b"more") is False:
                count(NOTED)
        elif command[0] == "flood":
            while True:
                await conn.send(PATTERN)
        elif command[0] == "long-sleep":
            await conn.send(b"asleep")
            await stoker.sleep(60)
        elif command[0] == "names":
            await conn.send(f"{conn.peer[1]} {conn.local[1]}".encode())
        elif command[0] == "wrong":
            try:
                await conn.send("text")
            except TypeError as error:
                await conn.send(str(error).encode())
        else:
            raise ValueError(command)
    finally:
        count(FINALLY)


def push(conn: Any) -> None:
    """From another thread."""
    for number in itertools.count():
        time.sleep(0.03)
        if number == 3 or not conn.post(f"<{number}>".encode()):
            break


class _Other(ast.NodeTransformer):
    """Take the ``async`` out, and put ``yield`` or nothing in the place of ``await``."""

    def __init__(self, style: str) -> None:
        self.style = style

    def visit_Await(self, node: ast.Await) -> Any:
        value = self.visit(node.value)
        return ast.Yield(value) if self.style == "generator" else value

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> Any:
        made = ast.FunctionDef(**{name: getattr(node, name, None) for name in ast.FunctionDef._fields})
        return ast.copy_location(self.generic_visit(made), node)


def in_style(function: Callable[..., Any], style: str) -> Callable[..., Any]:
    """The same function in another style."""
    if style == "async":
        return function
    tree = _Other(style).visit(ast.parse(textwrap.dedent(inspect.getsource(function))))
    names: dict[str, Any] = {}
    code = compile(ast.fix_missing_locations(tree), f"<{function.__name__}, {style}>", "exec")
    exec(code, function.__globals__, names)
    made = names[function.__name__]
    made.__module__ = function.__module__
    return made


def site_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """What the harness wants: from a worker to the handler of its connections."""

    def make(worker: Any) -> Any:
        from stoker.apps import operations, tcp
        from stoker.engines.blocking import PollIO

        operations.serve_for(worker)
        return tcp.site(worker, function, lambda: PollIO(worker.config.write_timeout)).handler

    return make


def log_to(path: Any) -> Callable[[Any], None]:
    """A setup for the harness that has the engine's log in a file."""

    def setup(worker: Any) -> None:
        fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(fd, 2)
        os.close(fd)

    return setup
