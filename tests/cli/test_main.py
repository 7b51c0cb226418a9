"""The command `stoker` as a user runs it: what it prints where, and its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from stoker import __version__, cli
from stoker.cli import arguments, engines
from stoker.config import DEFAULTS, OPTIONS

SOURCE = Path(__file__).resolve().parents[2] / "src"
APP = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [b""]

def make(name="x"):
    return app

nothing = 3
"""


def run(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder, with no option in the environment but those given."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("STOKER_", "PORT", "WEB_CONCURRENCY"))
    }
    return subprocess.run(
        [sys.executable, "-m", "stoker", *words],
        cwd=folder,
        env={**clean, "PYTHONPATH": str(SOURCE), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_version(tmp_path: Path) -> None:
    for words in (["--version"], ["-v"], ["serve", "-v"], ["m:a", "--version"]):
        outcome = run(tmp_path, *words, STOKER_INTERPRETED="1")
        assert (outcome.returncode, outcome.stderr) == (0, "")
        assert outcome.stdout.startswith(f"stoker {__version__}, interpreted (STOKER_INTERPRETED is set), CPython 3.")


def test_help(tmp_path: Path) -> None:
    outcome = run(tmp_path, "--help")
    assert (outcome.returncode, outcome.stderr) == (0, "")
    for name in cli.COMMANDS:
        assert f"  {name} " in outcome.stdout
        help_ = run(tmp_path, name, "--help")
        assert (help_.returncode, help_.stderr) == (0, "")
        assert "examples:\n  stoker " in help_.stdout


def test_the_examples_of_the_help_can_be_parsed() -> None:
    """Each example says nothing that the parser refuses."""
    for line in (cli.HELP + arguments.EPILOG).splitlines():
        if line.startswith("  stoker ") and "engines" not in line:
            words = line.split("    ")[0].replace('"', "").split()[1:]
            arguments.parse_serve(words[1:] if words[0] == "serve" else words)
    assert "stoker engines -v" in engines.EXAMPLES


def test_every_option_is_in_the_help() -> None:
    text = arguments.serve_parser().format_help()
    for name in OPTIONS:
        assert arguments.flags(name)[DEFAULTS[name] is True] in text if name != "app" else "APP" in text
    assert "--spew" not in text


@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        (["serve"], 2, "nothing to serve"),
        (["engine"], 2, "'engine' is no command; did you mean engines?"),
        (["m:a", "--wrkers", "3"], 2, "--wrkers is no option; did you mean --workers? (see stoker serve --help)"),
        (["m:a", "--work", "3"], 2, "--work is no option"),
        (["m:a", "other"], 2, "'other' is one word too many"),
        (["m:a", "--bind"], 2, "argument -b/--bind: expected one argument"),
        (["m:a", "--daemon"], 2, "--daemon is not offered: let systemd run it"),
        (["m:a", "--workers", "-1"], 2, "--workers: -1 is out of range"),
        (
            ["m:a", "--engine", "poll", "--trigger", "edge"],
            2,
            "--trigger has no effect on engine poll (it is for epoll)",
        ),
        (["m:a", "--access-logfile", "-", "--access-logformat", "%(zz)s"], 2, "access_logformat: '%(zz)s' is no atom"),
        (["m:a", "--error-logfile", "/no/such/folder/log"], 2, "the log file '/no/such/folder/log' cannot be opened"),
        (["engines", "--jsn"], 2, "--jsn is no option; did you mean --json? (see stoker engines --help)"),
        (["engines", "m:a"], 2, "stoker engines -v APP"),
        (["engines", "-v", "nope:a"], 3, "there is no module 'nope'"),
    ],
)
def test_errors(words: list[str], status: int, complaint: str, tmp_path: Path) -> None:
    outcome = run(tmp_path, *words)
    assert (outcome.returncode, outcome.stdout) == (status, "")
    assert outcome.stderr.startswith("stoker: ")
    assert complaint in outcome.stderr
    assert outcome.stderr.count("\n") == 1


def test_engines(tmp_path: Path) -> None:
    from stoker.engines import REGISTRY

    table = run(tmp_path, "engines")
    assert (table.returncode, table.stderr) == (0, "")
    lines = {line.split("  ")[0]: line for line in table.stdout.splitlines()}
    for name, info in REGISTRY.items():
        assert info.waits in lines[name]
        assert info.suspended in lines[name]
    document = json.loads(run(tmp_path, "engines", "--json").stdout)
    assert [row["name"] for row in document["engines"]] == list(REGISTRY)
    assert all(isinstance(row["unavailable"], str) for row in document["engines"])


def test_an_engine_that_cannot_run_here_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.engines, "unavailable", lambda name: "not installed" if name == "gevent" else "")
    lines = engines.lines(engines.table(), verbose=False)
    at = next(number for number, line in enumerate(lines) if line.startswith("gevent "))
    assert lines[at].endswith(" no")
    assert lines[at + 1].strip() == "not installed"


def test_copy_on_write_is_measured(tmp_path: Path) -> None:
    (tmp_path / "big.py").write_text(APP + "ballast = [str(number) for number in range(200_000)]\n")
    document = json.loads(run(tmp_path, "engines", "-v", "big:app", "--json").stdout)["copy_on_write"]
    fresh, collected = document["child, just forked"], document["child, after gc.collect()"]
    for row in (fresh, collected):
        assert row["rss"] == row["uss"] + row["shared"]
        assert row["uss"] <= row["pss"] <= row["rss"]
    assert fresh["uss"] < collected["uss"]
    text = run(tmp_path, "engines", "-v").stdout
    assert "child, just forked" in text
    assert "has no effect" in text


def test_print_config(tmp_path: Path) -> None:
    (tmp_path / "stoker.toml").write_text("workers = 3\n")
    outcome = run(tmp_path, "m:a", "--print-config", "-b", ":80", STOKER_UMASK="022", STOKER_ZZZZZ="1")
    assert outcome.returncode == 0
    assert outcome.stderr == "stoker: STOKER_ZZZZZ in the environment is no option of Stoker\n"
    lines = {line.split(" ")[0]: line for line in outcome.stdout.splitlines() if not line.startswith("#")}
    assert lines["workers"].endswith("# stoker.toml: workers")
    assert lines["bind"].startswith('bind = [":80"] ')
    assert lines["bind"].endswith("# -b")
    assert lines["umask"].startswith("umask = 0o022 ")
    (tmp_path / "stoker.toml").write_text(outcome.stdout)
    again = run(tmp_path, "--print-config", "--json")
    options = json.loads(again.stdout)["options"]
    assert options["umask"] == {"value": 0o22, "origin": "stoker.toml: umask"}
    assert options["app"]["value"] == "m:a"
    assert set(options) == {name for name, option in OPTIONS.items() if not option.command_line_only}


@pytest.mark.parametrize(
    ("target", "status", "complaint"),
    [
        ("mine:app", 0, ""),
        ("mine:make()", 0, ""),
        ("nope:app", 3, "there is no module 'nope'"),
        ("mine:ap", 3, "it has app"),
        ("mine:nothing", 3, "is not an application"),
        ("broken:app", 3, "ZeroDivisionError"),
        ("leaves:app", 3, "importing the application ended the process (status 7)"),
    ],
)
def test_check_config(target: str, status: int, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("print('imported')\n" + APP)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "leaves.py").write_text("import os\nos._exit(7)\n")
    outcome = run(tmp_path, target, "--check-config", "--json")
    assert outcome.returncode == status
    assert complaint in outcome.stderr
    if status == 0:
        assert json.loads(outcome.stdout) == {"warnings": [], "importable": True}
        assert "imported" in outcome.stderr
        assert "can be imported" in run(tmp_path, target, "--check-config").stdout
    else:
        assert outcome.stdout == ""


def test_check_config_sees_the_folders_and_the_environment_of_the_application(tmp_path: Path) -> None:
    (tmp_path / "there" / "lib").mkdir(parents=True)
    (tmp_path / "there" / "lib" / "mine.py").write_text("import os\nassert os.environ['SECRET'] == 'x'\n" + APP)
    (tmp_path / "there" / "env").write_text("SECRET=x\n")
    words = ["mine:app", "--check-config", "--chdir", "there", "--app-dir", "lib", "--env-file", "env"]
    outcome = run(tmp_path, *words)
    assert (outcome.returncode, outcome.stderr) == (0, "")


def test_check_config_patches_as_gevent_does(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(APP + "from gevent import monkey\nassert monkey.is_module_patched('socket')\n")
    assert run(tmp_path, "mine:app", "--check-config", "--engine", "gevent").returncode == 0
    assert run(tmp_path, "mine:app", "--check-config").returncode == 3


HIDE = """
    import importlib.util, sys
    find = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *more: None if name in ("gevent", "uvloop") else find(name, *more)
    from stoker.cli import main
    sys.exit(main())
"""


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--engine", "gevent"], "engine gevent cannot run here: the package 'gevent' is not installed: pip install"),
        (["--engine", "asyncio", "--loop", "uvloop"], "the package 'uvloop' is not installed: pip install"),
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_what_is_not_installed_is_refused_at_the_start(
    words: list[str], complaint: str, check: bool, tmp_path: Path
) -> None:
    outcome = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(HIDE), "m:a", *words, *["--check-config"][: int(check)]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome.returncode == 2
    assert complaint in outcome.stderr
    assert outcome.stderr.startswith("stoker: ")


def test_a_full_standard_output_is_no_traceback(tmp_path: Path) -> None:
    command = f"{sys.executable} -m stoker engines >/dev/full"
    outcome = subprocess.run(
        ["sh", "-c", command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 1
    assert outcome.stderr == "stoker: standard output cannot be written: No space left on device\n"
