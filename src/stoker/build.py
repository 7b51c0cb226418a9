"""Compiled or interpreted: which modules are compiled, and whether they still belong to their sources.

A compiled module lies beside the `.py` that it was made from. Python prefers it, so a changed `.py` would have no
effect without a word. Therefore the build records a hash of each module's sources in `_build.json`, and `guard()`
compares.

`setup.py` loads this file by its path: it imports nothing of Stoker.
"""

import hashlib
import importlib.machinery
import json
import os
import re
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

PACKAGE = "stoker"
HERE = Path(__file__).resolve().parent
RECORD = "_build.json"
VARIABLE = "STOKER_INTERPRETED"
CIMPORT = re.compile(
    r"^\s*(?:from\s+([\w.]+)\s+cimport\b|cimport\s+([\w.]+)|from\s+cython\.cimports\.([\w.]+)\s+import\b)",
    re.MULTILINE,
)


def sources(module: str, root: Path = HERE) -> list[Path]:
    """The files that a compiled module is made from: its `.py`, its `.pxd` and the `.pxd` of Stoker that these cimport.

    `module` is a name such as "stoker.http.scan"; `root` is the folder of the package.
    """
    found: list[Path] = []
    todo = [root.joinpath(*module.split(".")[1:]).with_suffix(end) for end in (".py", ".pxd")]
    while todo:
        path = todo.pop()
        if path in found or not path.is_file():
            continue
        found.append(path)
        for names in CIMPORT.findall(path.read_text("utf-8")):
            parts = next(name for name in names if name).split(".")
            if parts[0] == PACKAGE:
                todo += [root.joinpath(*parts[1:]).with_suffix(".pxd"), root.joinpath(*parts[1:], "__init__.pxd")]
    return sorted(found)


def fingerprint(module: str, root: Path = HERE) -> str:
    """A hash of a module's sources, their names included."""
    total = hashlib.sha256()
    for path in sources(module, root):
        data = path.read_bytes()
        total.update(f"{path.relative_to(root).as_posix()} {len(data)}\n".encode())
        total.update(data)
    return total.hexdigest()


def record(root: Path = HERE) -> dict[str, object]:
    """What the last build wrote: `modules` (name → hash), and `reason` when nothing was compiled. Empty without one."""
    try:
        found = json.loads((root / RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def binaries(root: Path = HERE) -> dict[str, Path]:
    """The compiled modules that this Python would load, by name."""
    found = {}
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        for path in root.rglob("*" + suffix):
            stem = path.name.removesuffix(suffix)
            if "." not in stem:
                found[".".join((PACKAGE, *path.relative_to(root).parent.parts, stem))] = path
    return found


def stale(root: Path = HERE) -> dict[str, str]:
    """The compiled modules that do not belong to their sources, each with what is wrong and what to do."""
    built = record(root).get("modules", {})
    complaints = {}
    for name, path in sorted(binaries(root).items()):
        known = built.get(name) if isinstance(built, dict) else None
        if known == fingerprint(name, root):
            continue
        wrong = "was built from other sources than" if known else "was not built by setup.py, so it may not belong to"
        source = path.with_name(name.rpartition(".")[2] + ".py")
        complaints[name] = (
            f"{name} is stale: {path} {wrong} {source.name}; "
            f"build it again (pip install -e .), delete it, or set {VARIABLE}=1 to run the .py files"
        )
    return complaints


def interpreted_by_choice() -> bool:
    """Whether STOKER_INTERPRETED=1 asks for the `.py` files."""
    return os.environ.get(VARIABLE, "") not in ("", "0")


class Interpreter:
    """A finder that loads Stoker's modules from their `.py` files, whatever lies beside them."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module of Stoker among the `.py` files of the folders in `path`; leave every other module alone."""
        if not name.startswith(PACKAGE + ".") or path is None:
            return None
        loader = (importlib.machinery.SourceFileLoader, importlib.machinery.SOURCE_SUFFIXES)
        for folder in path:
            if found := importlib.machinery.FileFinder(folder, loader).find_spec(name):
                return found
        return None


class Refuser:
    """A finder that refuses to load stale modules."""

    def __init__(self, complaints: dict[str, str]) -> None:
        self.complaints = complaints

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Raise ImportError for a stale module; leave every other one to the finders that follow."""
        if name in self.complaints:
            raise ImportError(self.complaints[name], name=name)
        return None


complaints: dict[str, str] = {}


def guard() -> None:
    """Make imports do what was asked for: the `.py` files under STOKER_INTERPRETED=1, and never a stale module."""
    if interpreted_by_choice():
        sys.meta_path.insert(0, Interpreter())
        return
    complaints.update(stale())
    if complaints:
        sys.meta_path.insert(0, Refuser(complaints))


def refusal() -> str:
    """What is wrong with the compiled modules that guard() found stale, in one line."""
    first, *others = complaints
    return complaints[first] + (f" (stale as well: {', '.join(others)})" if others else "")


def describe() -> str:
    """Compiled or interpreted, and why, for the start-up line and `stoker --version`."""
    built = binaries()
    if interpreted_by_choice():
        return f"interpreted ({VARIABLE} is set)"
    if built:
        return f"compiled ({len(built)} modules{f', {len(complaints)} of them stale' if complaints else ''})"
    reason = record().get("reason")
    return f"interpreted ({reason})" if reason else "interpreted (nothing was compiled)"
