"""`-c gunicorn.conf.py`: refused, not executed, and what can be read of it printed as TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from stoker.cli import gunicorn, main
from stoker.config.sources import from_file
from stoker.errors import ConfigError


def translated(text: str, folder: Path) -> tuple[dict[str, object], str]:
    """What the TOML holds, and its text."""
    path = folder / "gunicorn.conf.py"
    path.write_text(text)
    toml = gunicorn.refuse(str(path))
    return tomllib.loads(toml), toml


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("bind = '0.0.0.0:80'", {"bind": ["0.0.0.0:80"]}),
        ("bind = ['a:80', 'unix:/x']", {"bind": ["a:80", "unix:/x"]}),
        ("workers = 2 * 4 + 1", {"workers": 9}),
        ("workers: int = 3", {"workers": 3}),
        ("worker_class = 'gevent'", {"engine": "gevent"}),
        ("worker_class = 'sync'", {"engine": "epoll"}),
        (
            "keepalive = 5\ntimeout = 120\ngraceful_timeout = 20",
            {"keep_alive": 5, "worker_timeout": 120, "graceful_timeout": 20},
        ),
        ("preload_app = True\nreload = False", {"preload": True, "reload": False}),
        ("accesslog = '-'\naccess_log_format = '%(h)s'", {"access_logfile": "-", "access_logformat": "%(h)s"}),
        ("errorlog = '/var/log/x'\nloglevel = 'debug'", {"error_logfile": "/var/log/x", "log_level": "debug"}),
        ("pidfile = '/run/x.pid'\numask = 0o27", {"pid": "/run/x.pid", "umask": 0o27}),
        ("wsgi_app = 'm:a'\npythonpath = 'a,b'", {"app": "m:a", "app_dir": ["a", "b"]}),
        ("worker_connections = 5\nmax_requests = 10 ** 3", {"max_connections": 5}),
        ("accesslog = None\nuser = None\ngroup = 0\nchdir = ''", {}),
        ("x = y = 1\n_bind = 'a:1'\nfrom os import path\n", {}),
        ("", {}),
    ],
)
def test_settings(text: str, options: dict[str, object], tmp_path: Path) -> None:
    found, toml = translated(text, tmp_path)
    assert found == options
    from_file("stoker.toml", found)
    assert toml.isprintable() or "\n" in toml


@pytest.mark.parametrize(
    ("text", "remark"),
    [
        (
            "import multiprocessing\nworkers = multiprocessing.cpu_count() * 2 + 1",
            'write it yourself: multiprocessing.cpu_count() * 2 + 1; "auto" stands for as many as the CPUs',
        ),
        ("bind = f'0.0.0.0:{1}'", "not a literal, so write it yourself: f'0.0.0.0:{1}'"),
        ("workers = 1 // 0", "not a literal"),
        ("certfile = 'x.pem'", "# certfile in gunicorn.conf.py line 1: this version speaks no TLS"),
        ("tmp_upload_dir = '/x'", "# tmp_upload_dir in gunicorn.conf.py line 1: long bodies go to"),
        ("wrokers = 3", "# wrokers in gunicorn.conf.py line 1: no setting of gunicorn 27"),
        ("workers = 'x'", "# workers (workers in gunicorn.conf.py line 1): 'x' is not a whole number"),
        ("print_config = True", "makes sense on the command line alone"),
        ("\n\ndef on_exit(server):\n    pass", "# on_exit() in line 3: there are no server hooks"),
        ("if True:\n    workers = 3", "# line 1: what a condition or a loop sets was not looked at"),
    ],
)
def test_remarks(text: str, remark: str, tmp_path: Path) -> None:
    found, toml = translated(text, tmp_path)
    assert found == {}
    assert remark in toml


def test_nothing_is_executed(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    translated(
        f"open({str(witness)!r}, 'w')\nbind = open({str(witness)!r}, 'w').name\nworkers = [1 for _ in (9,)]", tmp_path
    )
    assert not witness.exists()


def test_a_newline_in_a_value_begins_no_line(tmp_path: Path) -> None:
    found, _ = translated("proc_name = 'a\\nworkers = 9'", tmp_path)
    assert found == {"proc_name": "a\nworkers = 9"}


@pytest.mark.parametrize(
    ("path", "text", "complaint"),
    [
        ("nope.py", None, "cannot be read: No such file"),
        ("bad.py", "def", "is not a Python file"),
        ("python:module", None, "a module of gunicorn's options is not imported"),
    ],
)
def test_unreadable(
    path: str, text: str | None, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path(path).write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        gunicorn.refuse(path)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gunicorn.conf.py").write_text("workers = 3\n")
    for words in (["-c", "gunicorn.conf.py"], ["-c", "file:gunicorn.conf.py", "m:a"]):
        assert main(words) == 2
        output, errors = capfd.readouterr()
        assert tomllib.loads(output) == {"workers": 3}
        assert "write the lines above into stoker.toml" in errors
    monkeypatch.setenv("STOKER_CONFIG", "gunicorn.conf.py")
    assert main(["m:a"]) == 2
