"""docs/write-an-engine.md: its pieces of code, put where it says, are an engine that serves and keeps the contract."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert text.count(old) == 1, f"{old!r} in {path.name}"
    path.write_text(text.replace(old, new), "utf-8")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout, interpreted, with the page's engine in it."""
    tree = tmp_path_factory.mktemp("tree")
    uncompiled = shutil.ignore_patterns("*.so", "_build.json", "__pycache__", "*.egg-info")
    for name in ("src", "examples", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=uncompiled)
    shutil.copy(ROOT / "pyproject.toml", tree)
    page = (ROOT / "docs" / "write-an-engine.md").read_text("utf-8")
    poller, entry, name = re.findall(r"```(?:python|text)\n(.*?)```", page, re.DOTALL)
    package = tree / "src" / "stoker"
    (package / "engines" / "selectors.py").write_text(poller, "utf-8")
    replaced(
        package / "engines" / "__init__.py",
        '    EngineInfo(\n        "process"',
        f'{entry}    EngineInfo(\n        "process"',
    )
    replaced(package / "config" / "table.py", "POOLED = (", f"POOLED = ({name.strip()}, ")
    replaced(tree / "tests" / "engines" / "harness.py", "CONFIGURATIONS = [", f"CONFIGURATIONS = [{name.strip()}, ")
    return tree


def environment(tree: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}


@contextlib.contextmanager
def serving(tree: Path) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "stoker",
        "examples.hello:app",
        "--engine",
        "selectors",
        "--bind",
        f"127.0.0.1:{port}",
    ]
    with subprocess.Popen(command, cwd=tree, env=environment(tree), stdin=subprocess.DEVNULL) as server:
        try:
            yield port
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(20) == 0


def test_it_serves(tree: Path) -> None:
    with serving(tree) as port:
        deadline = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                    assert answer.read() == b"Hello from Stoker\n"
                    break
            except urllib.error.URLError:
                assert time.monotonic() < deadline
                time.sleep(0.05)


def test_it_keeps_the_contract(tree: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/engines", "-k", "selectors"],
        cwd=tree, env=environment(tree), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout


def test_it_is_in_the_table(tree: Path) -> None:
    command = [sys.executable, "-m", "stoker", "engines"]
    done = subprocess.run(command, cwd=tree, env=environment(tree), capture_output=True, text=True, check=True)
    assert "what Python chooses" in done.stdout
