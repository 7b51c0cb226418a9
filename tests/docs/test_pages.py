"""The pages: their links lead somewhere, what they show runs, and the two languages show the same."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
TRANSLATED = [("README.md", "README.zh-CN.md"), ("docs/notes.md", "docs/notes.zh-CN.md")]


def anchors(page: Path) -> set[str]:
    """What the headings of a page can be linked by."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_paths_that_are_named(page: Path) -> None:
    """A file or folder of the project that is named in code is there."""
    pattern = r"`((?:src/|tests/|docs/|scripts/|examples/|\./scripts/|\.ci/)[\w./-]*)"
    names = re.findall(pattern, page.read_text("utf-8"))
    new = {"src/stoker/engines/selectors.py", "docs/results/long.json"}  # what the reader makes, what --long writes
    missing = [name for name in names if name.rstrip(".") not in new and not (ROOT / name).exists()]
    assert not missing


def shown(name: str) -> list[str]:
    """The commands and options that a page shows, without their comments."""
    text = (ROOT / name).read_text("utf-8")
    code = re.findall(r"`([^`\n]+)`", text) + re.findall(r"^    (\S.*)$", text, re.MULTILINE)
    commands = [re.split(r"\s+#", line)[0].strip() for line in code]
    return sorted({one for one in commands if one.startswith(("stoker ", "./scripts/", "--", "pip ", "source "))})


@pytest.mark.parametrize(("english", "chinese"), TRANSLATED)
def test_both_languages_show_the_same(english: str, chinese: str) -> None:
    assert len(shown(english)) > 10
    assert shown(english) == shown(chinese)
    blocks = [
        re.findall(r"```python\n.*?```", (ROOT / name).read_text("utf-8"), re.DOTALL) for name in (english, chinese)
    ]
    assert blocks[0] == blocks[1]
    headings = [re.findall(r"^#+ ", (ROOT / name).read_text("utf-8"), re.MULTILINE) for name in (english, chinese)]
    assert headings[0] == headings[1]


@pytest.mark.parametrize("name", ["README.md", "docs/notes.md", "docs/engines.md", "docs/write-an-engine.md"])
def test_commands_are_understood(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every `stoker` command of a page, but those of the tools that the page says come later."""
    later = {"bench", "watch", "states", "load", "lab", "connect", "fetch", "guard", "backlog"}
    commands = [shlex.split(one)[1:] for one in shown(name) if one.startswith("stoker ")]
    commands = [words for words in commands if words[0] not in later and "selectors" not in words]
    assert commands
    monkeypatch.chdir(tmp_path)
    for words in commands:
        if words[0] == "engines" or "--help" in words:
            continue
        assert main([*words, "--print-config"]) == 0, words


@contextlib.contextmanager
def serving(folder: Path, *words: str) -> Iterator[tuple[str, int]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
    command = [sys.executable, "-m", "stoker", *words, "--bind", f"{address[0]}:{address[1]}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 20
            while True:
                with contextlib.suppress(ConnectionRefusedError), socket.create_connection(address):
                    break
                assert server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield address
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(20) == 0


def test_first_server_of_the_readme(tmp_path: Path) -> None:
    application, handler = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    (tmp_path / "hello.py").write_text(application, "utf-8")
    (tmp_path / "raw.py").write_text(handler, "utf-8")
    with (
        serving(tmp_path, "hello:app") as (host, port),
        urllib.request.urlopen(f"http://{host}:{port}/", timeout=10) as answer,
    ):
        assert answer.read() == b"Hello\n"
    with serving(tmp_path, "--tcp", "raw:handle") as address, socket.create_connection(address, timeout=10) as client:
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"
