"""Over many requests nothing grows: memory, descriptors, threads, children.

CI asks 20,000 times on two engines; `./scripts/test --long` asks 100,000 times on all.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.apps.server import ALL
from tests.life.clients import whole
from tests.life.conftest import Real
from tests.supervisor.harness import children, wait_for

BATCH = [
    b"GET /?%d HTTP/1.1\r\nHost: test\r\n\r\n",
    b"GET /stream?%d HTTP/1.1\r\nHost: test\r\nX-A: b\r\n\r\n",
    b"POST /%d HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /%d HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"GET /caf%%c3%%a9?%d HTTP/1.1\r\nHost: test\r\nCookie: a=b\r\n\r\n",
]
PER_CONNECTION = 200
GROWTH = 1024  # KiB


def ask(server: Real, count: int, start: int) -> None:
    """``count`` requests of all kinds, five at a time, 200 on a connection; some clients leave in the middle."""
    for connection in range(start, start + count, PER_CONNECTION):
        with socket.create_connection(server.address, 30) as client:
            for number in range(connection, connection + PER_CONNECTION, len(BATCH)):
                client.sendall(b"".join(text % (number + place) for place, text in enumerate(BATCH)))
                got = b""
                answers = 0
                while answers < len(BATCH):
                    data = client.recv(65536)
                    assert data, f"the server closed after {got!r}"
                    got += data
                    while end := whole_of_any(got):
                        assert got.startswith(b"HTTP/1.1 200 "), got
                        got = got[end:]
                        answers += 1
            if connection % 1000 == 0:
                client.sendall(b"".join(text % 0 for text in BATCH))  # and gone, without a look at the answers


def whole_of_any(data: bytes) -> int:
    """The length of the response that ``data`` begins with, chunked ones too; 0 while it is not whole."""
    head, end, _ = data.partition(b"\r\n\r\n")
    if end and b"Transfer-Encoding: chunked" in head:
        return data.find(b"\r\n0\r\n\r\n", len(head)) + 7 if b"\r\n0\r\n\r\n" in data[len(head) :] else 0
    return whole(data)


def memory(pid: int) -> int:
    """Resident memory, in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("the process has no memory")


def holdings(pid: int) -> tuple[int, int, int]:
    """Descriptors, threads and children."""
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task")), len(children(pid))


FEW = [pytest.param(name, 5_000, 20_000, id=f"{name}-few") for name in ("epoll", "thread")]
MANY = [
    pytest.param(name, 20_000, 100_000, id=f"{name}-many", marks=[pytest.mark.long, pytest.mark.timeout(900)])
    for name in ALL
]


@pytest.mark.parametrize(("configuration", "first", "all_"), FEW + MANY)
def test_nothing_grows(
    serve: Callable[..., Real],
    configuration: str,
    first: int,
    all_: int,
    record_property: Callable[[str, object], None],
) -> None:
    server = serve(configuration)
    (worker,) = server.workers()
    ask(server, 1000, 0)
    wait_for(lambda: holdings(worker)[2] == 0, "the children's end")
    at_rest = holdings(worker)
    ask(server, first - 1000, 1000)
    before = memory(worker)
    ask(server, all_ - first, first)
    grown = memory(worker) - before
    record_property("requests", all_)
    record_property("grown_kib", grown)
    record_property("resident_kib", before)
    assert grown <= GROWTH
    wait_for(
        lambda: all(now <= then for now, then in zip(holdings(worker), at_rest, strict=True)),
        f"descriptors, threads and children are at most {at_rest} again",
    )
