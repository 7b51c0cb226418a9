"""Every contract test runs on every engine; what a handler sees comes back through a pipe, from any process."""

from __future__ import annotations

import json
import os
import resource
import select
import time
from typing import Any

import pytest
from tests.engines.harness import CONFIGURATIONS


@pytest.fixture(params=CONFIGURATIONS)
def configuration(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session", autouse=True)
def _many_descriptors() -> None:
    """A thousand clients live in this process."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))


class Reports:
    """Lines that handlers write, a JSON list each, and the test reads."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._rest = b""
        self._unread: list[list[Any]] = []

    def say(self, *words: Any) -> None:
        """From a handler, a job, a thread: one write, which is whole (pipe(7), PIPE_BUF)."""
        os.write(self._writer, json.dumps(words).encode() + b"\n")

    def expect(self, name: str, timeout: float = 10.0) -> list[Any]:
        """The rest of the next line that begins with ``name``; others are kept for later."""
        deadline = time.monotonic() + timeout
        while True:
            for line in self._unread:
                if line[0] == name:
                    self._unread.remove(line)
                    return line[1:]
            if not self._read(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"no report {name!r} within {timeout} s; there are {self._unread}")

    def count(self, name: str) -> int:
        """How many lines of this name have come so far."""
        while self._read(0):
            pass
        return sum(line[0] == name for line in self._unread)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._reader], [], [], seconds)[0]:
            return False
        *lines, self._rest = (self._rest + os.read(self._reader, 65536)).split(b"\n")
        self._unread += [json.loads(line) for line in lines]
        return True

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


@pytest.fixture
def reports() -> Any:
    made = Reports()
    yield made
    made.close()
