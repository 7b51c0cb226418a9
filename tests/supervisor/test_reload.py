"""--reload: what counts as a change, and what becomes of it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.supervisor.harness import ENVIRONMENT, Counting, Server, alive, wait_for

from stoker.supervisor import watch
from stoker.supervisor.reload import describe
from stoker.supervisor.watch import Choice, differences, scan

INCLUDE, EXCLUDE = ("*.py",), (".*", "*.py[cod]", "*.sw?", "*~")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for path in ("app.py", "pkg/views.py", ".venv/lib.py", "env/pyvenv.cfg", "env/lib.py", "pkg/__pycache__/views.py"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("")
    (root / "notes.txt").write_text("")
    (root / "node_modules").mkdir()
    (root / "node_modules" / "x.py").write_text("")
    return root


def names(root: Path, choice: Choice) -> set[str]:
    return {os.path.relpath(path, root) for path in scan(choice)}


def test_what_is_watched(tree: Path) -> None:
    assert names(tree, Choice((str(tree),), INCLUDE, EXCLUDE)) == {"app.py", "pkg/views.py"}
    assert names(tree, Choice((str(tree),), ("*.py", "*.txt"), (*EXCLUDE, "pkg"))) == {"app.py", "notes.txt"}
    assert names(tree, Choice((str(tree),), ("pkg/*.py",), EXCLUDE)) == {"pkg/views.py"}
    assert names(tree, Choice((str(tree),), INCLUDE, (*EXCLUDE, "pkg/views.py"))) == {"app.py"}
    assert names(tree, Choice((str(tree / "pkg"),), INCLUDE, EXCLUDE)) == {"pkg/views.py"}


def test_both_ways_agree_on_what_is_watched(tree: Path) -> None:
    choice = Choice((str(tree),), INCLUDE, EXCLUDE)
    every = {str(path) for path in tree.rglob("*") if path.is_file()}
    assert {path for path in every if choice.reaches(path)} == set(scan(choice))
    assert not choice.reaches("/elsewhere/app.py")


def test_a_directory_that_is_hidden_itself_may_be_named(tmp_path: Path) -> None:
    root = tmp_path / ".hidden"
    root.mkdir()
    (root / "app.py").write_text("")
    choice = Choice((str(root),), INCLUDE, EXCLUDE)
    assert names(root, choice) == {"app.py"}
    assert choice.reaches(str(root / "app.py"))


def test_differences(tree: Path) -> None:
    choice = Choice((str(tree),), INCLUDE, EXCLUDE)
    before = scan(choice)
    assert differences(before, scan(choice)) == set()
    (tree / "app.py").write_text("changed")
    (tree / "new.py").write_text("")
    (tree / "pkg/views.py").unlink()
    assert differences(before, scan(choice)) == {str(tree / one) for one in ("app.py", "new.py", "pkg/views.py")}


def test_a_file_replaced_by_one_of_the_same_age_and_size_is_a_change(tree: Path) -> None:
    choice = Choice((str(tree),), INCLUDE, EXCLUDE)
    before = scan(choice)
    found = (tree / "app.py").stat()
    (tree / "draft").write_text("")
    os.utime(tree / "draft", ns=(found.st_atime_ns, found.st_mtime_ns))
    (tree / "draft").rename(tree / "app.py")
    assert differences(before, scan(choice)) == {str(tree / "app.py")}


def test_one_line_for_people(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert describe([str(tree / "app.py")]) == "app.py"
    assert describe([str(tree / "pkg/views.py"), str(tree / "z.py")]) == "pkg/views.py and 1 more"
    monkeypatch.chdir(tree / "pkg")
    assert describe([str(tree / "app.py")]) == str(tree / "app.py")


# The program


WITHOUT = "import sys; sys.modules['watchfiles'] = None; from stoker.supervisor.watch import main; sys.exit(main())"


@pytest.fixture(params=["watchfiles", "polling"])
def program(request: pytest.FixtureRequest) -> list[str]:
    """With inotify and without."""
    if request.param == "watchfiles":
        pytest.importorskip("watchfiles", reason="the extra `watch` is not installed")
        return [sys.executable, "-m", "stoker.supervisor.watch"]
    return [sys.executable, "-c", WITHOUT]


@contextlib.contextmanager
def watching(program: list[str], *directories: Path) -> Iterator[subprocess.Popen[str]]:
    words = [f"--dir={one}" for one in directories] + ["--include=*.py", "--exclude=.*"]
    process = subprocess.Popen([*program, *words], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def batch(process: subprocess.Popen[str], change: Callable[[], object]) -> set[str]:
    """Change something, again and again until the program has begun to watch; the next batch of changes."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    turns = 0

    def line() -> str:
        nonlocal turns
        turns += 1
        if turns % 100 == 1:
            change()
        assert process.stdout is not None
        return process.stdout.readline()

    return {Path(path).name for path in json.loads(wait_for(line, "a batch"))}


def test_changes_are_told(program: list[str], tree: Path) -> None:
    with watching(program, tree) as process:
        count = iter(range(1000))
        assert batch(process, lambda: (tree / "app.py").write_text(str(next(count)))) == {"app.py"}
        (tree / "notes.txt").write_text("no matter")
        (tree / ".venv" / "lib.py").write_text("no matter")
        (tree / "deeper").mkdir()
        assert "new.py" in batch(process, lambda: (tree / "deeper" / "new.py").write_text(str(next(count))))


def test_what_was_edited_before_it_watched_is_told(program: list[str], tree: Path) -> None:
    (tree / "app.py").write_text("edited while the program was starting")
    edited = (tree / "app.py").stat().st_ctime_ns
    with watching([*program, f"--since={edited}"], tree) as process:
        assert "app.py" in batch(process, lambda: None)
    with watching([*program, f"--since={time.time_ns() + 10**9}"], tree) as process:
        assert batch(process, lambda: (tree / "new.py").write_text("")) == {"new.py"}


def test_it_ends_when_nobody_reads(program: list[str], tree: Path) -> None:
    with watching(program, tree) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(10) == 0


def test_where_inotify_is_refused_the_files_are_looked_at(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Choice) -> Iterator[set[str]]:
        raise OSError("OS file watch limit reached")
        yield set()

    monkeypatch.setattr(watch, "notify", refuse)
    monkeypatch.setattr(watch, "INTERVAL", 0.01)
    batches = watch.batches(Choice((str(tree),), INCLUDE, EXCLUDE))
    assert next(batches) == set()
    (tree / "app.py").write_text("changed")
    assert next(batches) == {str(tree / "app.py")}


# The server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "app.py").write_text("one")
    server = Server(tmp_path, workers=2, application="app.py", reload="true").ready(2)
    wait_for(lambda: watchers(server), "the watcher")
    yield server
    server.stop()


def watchers(server: Server) -> list[int]:
    def command(pid: int) -> str:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_text()
        return ""

    return [pid for pid in server.workers() if "stoker.supervisor.watch" in command(pid)]


def edit(server: Server, text: str, pattern: str, count: int = 1) -> None:
    """Write the file, again until it is noticed: the watcher may not have begun."""
    turns = 0

    def noticed() -> bool:
        nonlocal turns
        turns += 1
        if turns % 100 == 1:
            (server.directory / "app.py").write_text(text + "\n" * turns)
        return server.log().count(pattern) >= count

    wait_for(noticed, f"{count} of {pattern!r}")


def test_an_edit_replaces_the_workers(server: Server) -> None:
    with Counting(server) as counting:
        edit(server, "two", "app.py changed: reload")
        server.wait_log("every worker is new")
        counting.more()
    assert counting.failures == []
    assert server.ask()[1] == "two 0"
    assert server.log().count("changed: reload") == 1, "one line for one edit"


def test_an_edit_drains_the_old_workers_at_once(server: Server) -> None:
    """Who keeps a connection open must not get an answer of the old code."""
    with server.connect() as kept:
        edit(server, "two", "every worker is new")
        assert kept.recv(1) == b""


def test_a_broken_edit_keeps_the_good_workers_and_says_why(server: Server) -> None:
    edit(server, "fail", "reload given up")
    assert "the application cannot be imported: it says fail" in server.log()
    assert server.ask()[1] == "one 0"
    edit(server, "mended", "every worker is new")
    assert server.ask()[1] == "mended 0"


def test_a_watcher_that_dies_is_replaced(server: Server) -> None:
    [pid] = watchers(server)
    os.kill(pid, 9)
    server.wait_log("the process that watches the files was killed by SIGKILL; another is started")
    wait_for(lambda: watchers(server), "another watcher")
    edit(server, "two", "every worker is new")


def test_the_watcher_goes_with_the_master(server: Server) -> None:
    [pid] = watchers(server)
    server.kill()
    assert server.wait() == 0
    assert not alive(pid)


def test_the_watcher_goes_with_a_killed_master(server: Server) -> None:
    [pid] = watchers(server)
    server.kill(9)
    server.wait()
    wait_for(lambda: not alive(pid), "the watcher ends")


def test_with_preload(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("one")
    server = Server(tmp_path, workers=2, application="app.py", reload="true", preload="true").ready(2)
    try:
        for turn, text in enumerate(("two", "three"), 1):
            wait_for(lambda: watchers(server), "the watcher")
            edit(server, text, "every worker is new", turn)
            assert server.ask()[1] == f"{text} 0"
        edit(server, "fail", "reload given up")
        assert server.ask()[1] == "three 0"
    finally:
        server.stop()
