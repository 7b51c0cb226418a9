"""Who may import whom, what the master keeps out, and the ceilings: DESIGN's picture, read from the sources."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "stoker"
SOURCES = sorted(PACKAGE.rglob("*.py"))

LEAVES = {"errors", "config", "log", "stats"}
COMPILING = {
    "nocython",
    "plain",
}  # what stands in for Cython, and for the inline functions of a .pxd, in an interpreted run
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "build": set(),
    "nocython": set(),
    "plain": {"nocython"},
    "config": {"errors"},
    "log": {"errors", "config"},
    "stats": {"errors", "config", *COMPILING},
    "http": {"errors", *COMPILING},
    "connection": LEAVES | COMPILING,
    "pool": LEAVES | {"connection"},
    "engines": LEAVES | COMPILING | {"connection", "net"},
    "net": LEAVES | COMPILING | {"connection"},
    "apps": LEAVES | COMPILING | {"connection", "http", "pool"},
    "worker": LEAVES | {"apps", "engines", "net", "pool", "http", "connection", "watchdog", "build", "stoker"},
    "watchdog": LEAVES | {"connection"},
    "supervisor": LEAVES | {"worker", "net", "build"},
    "cli": LEAVES | {"supervisor", "worker", "engines", "build", "stoker"},
    "stoker": LEAVES | {"build", "supervisor", "apps"},
    "load": {"errors", *COMPILING},
    "__main__": {"cli"},
}


def layer(path: Path) -> str:
    """The first part of a module's name below the package; the package itself is "stoker"."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py").removesuffix(".pxd")
    return "stoker" if first == "__init__" else first


def target(name: str) -> str:
    """The layer that a dotted name belongs to; a name of the package itself, such as __version__, is in "stoker"."""
    parts = name.split(".")
    if len(parts) == 1 or not ((PACKAGE / parts[1]).is_dir() or (PACKAGE / f"{parts[1]}.py").is_file()):
        return "stoker"
    return parts[1]


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """The modules of Stoker that a file imports, anywhere in it, each with the line."""
    if path.suffix == ".pxd":
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if match := re.match(r"\s*(?:from\s+(stoker[\w.]*)\s+cimport\s+(\w+)|cimport\s+(stoker[\w.]*))", line):
                yield (f"stoker.{match[2]}" if match[1] == "stoker" else match[1] or match[3]), number
        return
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name.split(".")[0] == "stoker")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            module = (node.module or "").removeprefix("cython.cimports.")
            if module == "stoker":
                yield from ((f"stoker.{alias.name}", node.lineno) for alias in node.names)
            elif module.startswith("stoker."):
                yield module, node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (
                (found.value.rstrip("."), node.lineno)
                for found in ast.walk(node)
                if isinstance(found, ast.Constant)
                and isinstance(found.value, str)
                and found.value.startswith("stoker.")
            )


def arrows(path: Path) -> list[str]:
    """The imports of a file that the picture does not have."""
    source = layer(path)
    return [
        f"{path.relative_to(ROOT)}:{line}: {source} imports {name}"
        for name, line in imported(path)
        if target(name) != source and target(name) not in ALLOWED[source]
    ]


@pytest.mark.parametrize(
    "path", [*SOURCES, *sorted(PACKAGE.rglob("*.pxd"))], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_arrows(path: Path) -> None:
    assert layer(path) in ALLOWED, f"{path} is in no layer of the picture"
    assert arrows(path) == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("http/x.py", "from stoker.connection import Connection"),
        ("http/x.py", "def f():\n    import stoker.log"),
        ("engines/x.py", "from stoker import apps"),
        ("config/x.py", "from stoker.log import info"),
        ("worker.py", "from stoker.cli import main"),
        ("net/x.py", "import importlib\nimportlib.import_module('stoker.engines.epoll')"),
        ("apps/x.pxd", "from stoker.engines.base cimport Engine"),
    ],
)
def test_a_wrong_arrow_is_found(file: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    for name in ("connection.py", "log.py", "apps", "engines", "cli", "http", "net", "config"):
        (tmp_path / name).touch() if name.endswith(".py") else (tmp_path / name).mkdir()
    (tmp_path / file).write_text(text)
    assert len(arrows(tmp_path / file)) == 1


def test_what_the_master_imports_keeps_what_gevent_patches_out() -> None:
    """gevent must patch before these are imported: in a worker, after fork, so the master must not import them."""
    modules = [
        ".".join(("stoker", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for path in SOURCES
        if layer(path)
        in {"stoker", "cli", "config", "errors", "log", "stats", "connection", "net", "supervisor", "worker", "build"}
        or path == PACKAGE / "engines" / "__init__.py"
    ]
    modules.remove("stoker.net.ring")  # compiled only: imported by the probe, where it can be
    code = f"""
        import importlib, sys
        before = set(sys.modules)
        for name in {modules}:
            importlib.import_module(name)
        from stoker.cli import arguments
        from stoker.config import sources
        from stoker.net import probe
        probe.refusal()
        outcome = arguments.parse_serve(["m:a", "--engine", "gevent", "--workers", "auto", "--user", "root"])
        sources.resolve(outcome.given, {{"STOKER_KEEP_ALIVE": "3"}})
        print(*sorted(set(sys.modules) - before))
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    found = set(run.stdout.split())
    assert {"stoker.supervisor", "stoker.worker", "stoker.net.listeners", "stoker.cli.serve"} <= found
    assert (
        found
        & {"ssl", "threading", "queue", "asyncio", "logging", "subprocess", "multiprocessing", "concurrent.futures"}
        == set()
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_ceilings(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 600
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= 60
    ]
    assert long == []


BLANKET = re.compile(
    r"#\s*(?:noqa(?!: ?[A-Z]+[0-9]+)|type:\s*ignore(?!\[)|mypy:\s*ignore|ruff:\s*noqa|pyright:)", re.IGNORECASE
)


def test_no_blanket_ignores() -> None:
    files = [path for folder in ("src", "tests", "examples", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in [*files, ROOT / "setup.py"]
        if path != Path(__file__)
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if BLANKET.search(line)
    ]
    assert found == []
    assert BLANKET.search("x = 1  # noqa")
    assert BLANKET.search("x = 1  # type: ignore")
    assert not BLANKET.search("x = 1  # type: ignore[attr-defined]  # noqa: E501")
