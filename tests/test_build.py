"""Compiled or interpreted: a stale module is refused by name, and STOKER_INTERPRETED=1 runs the .py files."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stoker import build

ROOT = Path(__file__).resolve().parent.parent
SUFFIX = importlib.machinery.EXTENSION_SUFFIXES[0]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package without compiled modules, in a folder of its own."""
    copy = tmp_path / "src" / "stoker"
    shutil.copytree(build.HERE, copy, ignore=shutil.ignore_patterns("*.so", "__pycache__", build.RECORD))
    return copy


def run(package: Path, code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name != build.VARIABLE}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, "PYTHONPATH": str(package.parent), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def compiled(package: Path, module: str, fingerprint: str | None = None) -> Path:
    """Put a file that only looks like a compiled module beside a .py, and record what it was built from."""
    path = package.joinpath(*module.split(".")[1:])
    binary = path.with_name(path.name + SUFFIX)
    binary.write_bytes(b"no extension at all")
    made = {"modules": {module: fingerprint or build.fingerprint(module, package)}, "reason": ""}
    (package / build.RECORD).write_text(json.dumps(made))
    return binary


def test_sources_are_the_py_the_pxd_and_what_these_cimport(tmp_path: Path) -> None:
    (tmp_path / "http").mkdir()
    files = {
        "a.py": "x = 1\n",
        "a.pxd": "from stoker.b cimport f\ncimport stoker.http.c\nfrom libc.string cimport memcpy\n",
        "b.pxd": "from stoker.d cimport g\n",
        "b.py": "",
        "d.pxd": "from stoker.a cimport h\n",
        "e.pxd": "",
        "http/c.pxd": "",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = [path.relative_to(tmp_path).as_posix() for path in build.sources("stoker.a", tmp_path)]
    assert found == ["a.pxd", "a.py", "b.pxd", "d.pxd", "http/c.pxd"]
    (tmp_path / "a.py").write_text("from cython.cimports.stoker.e import k\n")
    assert tmp_path / "e.pxd" in build.sources("stoker.a", tmp_path)


def test_a_fingerprint_changes_with_each_source(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "a.pxd").write_text("from stoker.b cimport f\n")
    (tmp_path / "b.pxd").write_text("\n")
    seen = {build.fingerprint("stoker.a", tmp_path)}
    for name in ("a.py", "a.pxd", "b.pxd"):
        (tmp_path / name).write_text((tmp_path / name).read_text() + "\n")
        seen.add(build.fingerprint("stoker.a", tmp_path))
    assert len(seen) == 4


def test_every_module_that_setup_compiles_is_there() -> None:
    text = (ROOT / "setup.py").read_text("utf-8")
    modules = [
        line.strip(' ",\n') for line in text.partition("MODULES = [")[2].partition("]")[0].split("\n") if line.strip()
    ]
    assert "stoker.http.scan" in modules
    for module in modules:
        assert build.HERE.joinpath(*module.split(".")[1:]).with_suffix(".py") in build.sources(module)
    typed = {
        ".".join(("stoker", *path.relative_to(build.HERE).with_suffix("").parts)) for path in build.HERE.rglob("*.pxd")
    }
    assert typed <= set(modules)


def test_a_stale_module_is_refused_by_name(package: Path) -> None:
    binary = compiled(package, "stoker.http.scan", "0" * 64)
    outcome = run(package, "import stoker, stoker.errors, stoker.http.scan")
    assert outcome.returncode == 1
    message = outcome.stderr.splitlines()[-1]
    assert message.startswith(
        f"ImportError: stoker.http.scan is stale: {binary} was built from other sources than scan.py; "
    )
    assert "pip install -e ." in message
    assert "STOKER_INTERPRETED=1" in message


def test_the_command_refuses_it_in_a_line(package: Path) -> None:
    compiled(package, "stoker.http.scan", "0" * 64)
    compiled(package, "stoker.http.body", "0" * 64)
    outcome = run(package, "from stoker.cli import main; raise SystemExit(main(['m:a']))")
    assert (outcome.returncode, outcome.stdout) == (3, "")
    assert outcome.stderr.startswith("stoker: stoker.http.body is stale: ")
    assert outcome.stderr.endswith(" (stale as well: stoker.http.scan)\n")
    assert outcome.stderr.count("\n") == 1


def test_a_changed_pxd_makes_stale_what_cimports_it(package: Path) -> None:
    compiled(package, "stoker.http.request")
    assert build.stale(package) == {}
    with (package / "http" / "scan.pxd").open("a") as file:
        file.write("\n")
    assert list(build.stale(package)) == ["stoker.http.request"]


def test_a_module_without_a_record_is_refused(package: Path) -> None:
    compiled(package, "stoker.http.scan")
    (package / build.RECORD).write_text("{")
    assert "was not built by setup.py" in build.stale(package)["stoker.http.scan"]
    (package / build.RECORD).unlink()
    assert "was not built by setup.py" in build.stale(package)["stoker.http.scan"]


def test_a_module_that_belongs_to_its_sources_is_loaded(package: Path) -> None:
    """What lies there is no extension, so that loading it fails: but it was tried."""
    compiled(package, "stoker.http.scan")
    outcome = run(package, "import stoker.http.scan")
    assert "stale" not in outcome.stderr
    assert "ImportError" in outcome.stderr


def test_interpreted_by_choice(package: Path) -> None:
    compiled(package, "stoker.http.scan", "0" * 64)
    code = "import stoker.http.scan as scan; from stoker import build; print(scan.__file__); print(build.describe())"
    outcome = run(package, code, STOKER_INTERPRETED="1")
    assert outcome.stderr == ""
    assert outcome.stdout.splitlines() == [str(package / "http" / "scan.py"), "interpreted (STOKER_INTERPRETED is set)"]
    assert run(package, code, STOKER_INTERPRETED="0").returncode == 1


def test_describe(package: Path) -> None:
    code = "from stoker import build; print(build.describe())"
    assert run(package, code).stdout == "interpreted (nothing was compiled)\n"
    (package / build.RECORD).write_text(json.dumps({"modules": {}, "reason": "there is no compiler"}))
    assert run(package, code).stdout == "interpreted (there is no compiler)\n"
    compiled(package, "stoker.http.scan")
    assert run(package, code).stdout == "compiled (1 modules)\n"
    compiled(package, "stoker.http.scan", "0" * 64)
    assert run(package, code).stdout == "compiled (1 modules, 1 of them stale)\n"


def make(folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Build in place, as an editable install does."""
    return subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def project(package: Path) -> Path:
    for name in ("setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, package.parents[1])
    return package.parents[1]


@pytest.mark.skipif(importlib.util.find_spec("Cython") is None, reason="Cython is not installed")
def test_without_a_compiler_the_build_says_so_in_one_line(project: Path) -> None:
    outcome = make(project, CC="/no/such/compiler")
    assert outcome.returncode == 0, outcome.stderr
    said = [line for line in outcome.stderr.splitlines() if "interpreted" in line]
    assert len(said) == 1
    assert said[0].startswith("stoker: nothing is compiled, so it will run interpreted: there is no working C compiler")
    assert "/no/such/compiler" in said[0]
    package = project / "src" / "stoker"
    assert build.binaries(package) == {}
    described = run(package, "from stoker import build; print(build.describe())").stdout
    assert described.startswith("interpreted (there is no working C compiler")


def test_without_cython_the_build_says_so(project: Path) -> None:
    (project / "Cython").mkdir()
    (project / "Cython" / "__init__.py").write_text("raise ImportError\n")
    outcome = make(project, PYTHONPATH=str(project))
    assert outcome.returncode == 0, outcome.stderr
    assert "stoker: nothing is compiled, so it will run interpreted: Cython is not installed\n" in outcome.stderr


def test_a_build_that_fails_leaves_no_old_module(project: Path) -> None:
    package = project / "src" / "stoker"
    binary = compiled(package, "stoker.http.scan")
    outcome = make(project, CC="/no/such/compiler")
    assert outcome.returncode == 0, outcome.stderr
    assert not binary.exists()
    assert build.record(package)["modules"] == {}


@pytest.mark.skipif(
    not (importlib.util.find_spec("Cython") and shutil.which("cc")), reason="there is no Cython, or no cc"
)
def test_one_module_that_does_not_compile_leaves_all_interpreted(project: Path) -> None:
    """A compiled module and an interpreted one cannot share C types."""
    compiler = project / "cc"
    compiler.write_text('#!/bin/sh\ncase "$*" in *scan.c*) echo no >&2; exit 1;; esac\nexec cc -O0 "$@"\n')
    compiler.chmod(0o755)
    keep = '"stoker.http.scan",\n    "stoker.engines.timers",\n'
    setup = project / "setup.py"
    text = setup.read_text("utf-8")
    setup.write_text(
        text.partition("MODULES = [")[0]
        + f"MODULES = [\n    {keep}"
        + "]"
        + text.partition("MODULES = [")[2].partition("]")[2]
    )
    outcome = make(project, CC=str(compiler), LDSHARED="cc -shared")
    assert outcome.returncode == 0, outcome.stderr
    assert "it will run interpreted: the C compiler failed on stoker.http.scan\n" in outcome.stderr
    assert build.binaries(project / "src" / "stoker") == {}
