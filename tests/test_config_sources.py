"""Where options come from: the command line, the environment, the file; which one counts, and what is said about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.cli.arguments import parse_serve
from stoker.config.sources import Settings, resolve
from stoker.errors import ConfigError


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def settings(words: str = "", environ: dict[str, str] | None = None, path: str | None = None) -> Settings:
    outcome = parse_serve(words.split())
    return resolve(outcome.given, environ or {}, outcome.path or path)


def refused(words: str = "", environ: dict[str, str] | None = None, path: str | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        settings(words, environ, path)
    return str(caught.value)


def test_the_order_of_the_sources() -> None:
    Path("stoker.toml").write_text("keep_alive = 1\nbacklog = 1\nheader-timeout = 1\n")
    found = settings("--keep-alive 3", {"STOKER_KEEP_ALIVE": "2", "STOKER_BACKLOG": "2"})
    assert (found.config.keep_alive, found.config.backlog, found.config.header_timeout) == (3, 2, 1)
    origins = {name: found.origins[name] for name in ("keep_alive", "backlog", "header_timeout", "body_timeout")}
    assert origins == {
        "keep_alive": "--keep-alive",
        "backlog": "STOKER_BACKLOG",
        "header_timeout": "stoker.toml: header-timeout",
        "body_timeout": "default",
    }
    assert found.warnings == ()


def test_values_that_follow_have_an_origin() -> None:
    assert settings("-k gthread").origins["threads"] == "follows from -k"
    assert settings("--access-logfile /dev/null").origins["access_log"] == "follows from --access-logfile"
    assert settings("--tcp m:h").origins["interface"] == "follows from --tcp"


def test_pyproject() -> None:
    Path("pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert settings().config.workers == 1
    Path("pyproject.toml").write_text("[tool.stoker]\nworkers = 3\n")
    assert settings().origins["workers"] == "pyproject.toml [tool.stoker]: workers"
    assert settings("-c pyproject.toml").config.workers == 3
    Path("stoker.toml").write_text("workers = 4\n")
    assert "keep one of them" in refused()
    assert settings("--config stoker.toml").config.workers == 4
    Path("pyproject.toml").write_text("[tool]\nstoker = 3\n")
    assert "is not a table" in refused()


def test_the_file_of_chdir(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "stoker.toml").write_text("workers = 3\n")
    assert settings("--chdir there").config.workers == 3
    assert settings("", {"STOKER_CHDIR": "there"}).origins["workers"].endswith("/there/stoker.toml: workers")
    assert "--chdir: 'nowhere' is not a directory" in refused("--chdir nowhere")


def test_a_named_file() -> None:
    Path("a.toml").write_text("workers = 3\n")
    assert settings("-c a.toml").config.workers == 3
    assert settings("", {"STOKER_CONFIG": "a.toml"}).config.workers == 3
    assert "cannot be read: No such file" in refused("-c b.toml")
    assert "its name ends in .toml" in refused("-c a.yaml")
    Path("pyproject.toml").write_text("")
    assert "has no table [tool.stoker]" in refused("-c pyproject.toml")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("workers = \n", "is not valid TOML: Invalid value (at line 1"),
        ("wrkers = 3\n", "stoker.toml: 'wrkers' is no option of Stoker; did you mean workers?"),
        ("daemon = true\n", "'daemon' is no option of Stoker: let systemd run it"),
        ("raw_env = []\n", "'raw_env' is no option of Stoker: write the variables into a file"),
        ("workers = 'three'\n", "stoker.toml: workers: 'three' is not a whole number"),
        ("umask = 8_000\n", "stoker.toml: umask: 8000 is not a mode"),
        ("keep-alive = 1\nkeep_alive = 2\n", "keep_alive is given twice"),
        ("check_config = true\n", "check_config makes sense on the command line alone"),
        ("[server]\nworkers = 1\n", "'server' is no option"),
    ],
)
def test_wrong_files(text: str, complaint: str) -> None:
    Path("stoker.toml").write_text(text)
    assert complaint in refused()


def test_values_in_a_file() -> None:
    Path("stoker.toml").write_text(
        'app = "m:a"\nbind = ["a:1", "b:2"]\numask = 0o022\npreload = true\nlimit_request_body = "1m"\n'
    )
    config = settings().config
    assert (config.app, config.bind, config.umask, config.preload) == ("m:a", ("a:1", "b:2"), 0o22, True)
    assert config.limit_request_body == 1 << 20


def test_the_environment() -> None:
    config = settings(
        "", {"STOKER_BIND": "a:1,b:2", "STOKER_RELOAD": "1", "STOKER_KEYS": "no", "STOKER_APP": "m:a"}
    ).config
    assert (config.bind, config.reload, config.keys, config.app) == (("a:1", "b:2"), True, False, "m:a")
    assert "STOKER_WORKERS: 'x' is not a whole number" in refused("", {"STOKER_WORKERS": "x"})


def test_unknown_variables_are_warned_about() -> None:
    environ = {
        "STOKER_WRKERS": "3",
        "STOKER_PRINT_CONFIG": "1",
        "STOKER_workers": "1",
        "STOKER_INTERPRETED": "1",
        "OTHER": "1",
    }
    found = settings("", environ)
    assert found.config.workers == 1
    assert "STOKER_WRKERS in the environment is no option of Stoker; did you mean STOKER_WORKERS?" in found.warnings
    assert len(found.warnings) == 3


def test_variables_of_kubernetes_are_ignored() -> None:
    """What Kubernetes sets for the services stoker and stoker-web."""
    found = settings(
        "",
        {
            "STOKER_SERVICE_HOST": "10.0.0.1",
            "STOKER_SERVICE_PORT": "80",
            "STOKER_SERVICE_PORT_HTTP": "80",
            "STOKER_PORT": "tcp://10.0.0.1:80",
            "STOKER_PORT_8000_TCP": "tcp://10.0.0.1:80",
            "STOKER_PORT_8000_TCP_PROTO": "tcp",
            "STOKER_PORT_8000_TCP_PORT": "80",
            "STOKER_PORT_8000_TCP_ADDR": "10.0.0.1",
            "STOKER_WEB_SERVICE_HOST": "10.0.0.1",
            "STOKER_WEB_PORT": "udp://10.0.0.1:80",
            "STOKER_WEB_PORT_53_UDP_ADDR": "10.0.0.1",
        },
    )
    assert (found.warnings, found.config.bind) == ((), ("127.0.0.1:8000",))


def test_a_port_in_the_environment_that_is_one() -> None:
    assert settings("", {"STOKER_PORT": "9000"}).config.bind == ("127.0.0.1:9000",)
    assert "STOKER_PORT: 'many' is not a whole number" in refused("", {"STOKER_PORT": "many"})


def test_web_concurrency() -> None:
    environ = {"WEB_CONCURRENCY": "3"}
    assert settings("", environ).origins["workers"] == "WEB_CONCURRENCY"
    assert settings("", {"WEB_CONCURRENCY": ""}).config.workers == 1
    assert "WEB_CONCURRENCY: 'x' is not" in refused("", {"WEB_CONCURRENCY": "x"})
    Path("stoker.toml").write_text("workers = 4\n")
    assert settings("", environ).config.workers == 4
    assert settings("-w 5", environ).config.workers == 5


def test_variables_of_other_servers_are_warned_about() -> None:
    warnings = settings("", {"GUNICORN_CMD_ARGS": "-w 3", "UVICORN_PORT": "80", "PORT": "5000"}).warnings
    assert [warning.split()[0] for warning in warnings] == ["GUNICORN_CMD_ARGS", "UVICORN_PORT", "PORT=5000"]
    assert "--bind 0.0.0.0:5000" in warnings[2]
    assert settings("-b :5000", {"PORT": "5000"}).warnings == ()


def test_a_file_of_gunicorn_that_lies_there_is_warned_about() -> None:
    Path("gunicorn.conf.py").write_text("workers = 3\n")
    found = settings()
    assert found.config.workers == 1
    assert "stoker -c gunicorn.conf.py prints it as TOML" in found.warnings[0]
    Path("stoker.toml").write_text("workers = 4\n")
    assert settings().warnings == ()


@pytest.mark.parametrize(
    ("words", "bind"),
    [
        ("--host 0.0.0.0", ("0.0.0.0:8000",)),
        ("--port 9000", ("127.0.0.1:9000",)),
        ("--host ::1 --port 0", ("[::1]:0",)),
        ("--host [::1]", ("[::1]:8000",)),
        ("--uds /run/a.sock", ("unix:/run/a.sock",)),
        ("--fd 3 --bind a:1 --port 2", ("a:1", "fd://3", "127.0.0.1:2")),
        ("-b a:1 -b b:2,c:3", ("a:1", "b:2", "c:3")),
    ],
)
def test_where_to_listen(words: str, bind: tuple[str, ...]) -> None:
    assert settings(words).config.bind == bind


def test_host_and_port_from_different_sources() -> None:
    Path("stoker.toml").write_text('host = "0.0.0.0"\n')
    found = settings("--port 9000")
    assert (found.config.bind, found.origins["bind"]) == (("0.0.0.0:9000",), "stoker.toml: host --port")
    assert settings("--bind a:1").config.bind == ("a:1",)
    assert "not an address" in refused("--host a/b")


def test_no_effect_is_an_error_on_the_command_line_and_a_warning_elsewhere() -> None:
    assert refused("--trigger edge --engine poll") == "--trigger has no effect on engine poll (it is for epoll)"
    assert refused("--trigger level -k sync --spin").startswith("--spin has no effect on engine epoll")
    found = settings("--engine poll", {"STOKER_TRIGGER": "edge", "STOKER_SPIN": "1"})
    assert found.config.trigger == "level"
    assert found.warnings == (
        "STOKER_SPIN has no effect on engine poll (it is for nonblocking): it is ignored",
        "STOKER_TRIGGER has no effect on engine poll (it is for epoll): it is ignored",
    )
    Path("stoker.toml").write_text("keep_alive = 3\naccess_logformat = '%(h)s'\n")
    assert len(settings("--tcp m:h").warnings) == 2
    assert settings("--access-log").config.access_logformat == "%(h)s"


def test_the_default_given_on_the_command_line_is_refused_too() -> None:
    assert "--trigger has no effect" in refused("--trigger level --engine poll")
    assert "--threads has no effect" in refused("--threads 0 --engine thread")


def test_the_stronger_source_says_what_is_served() -> None:
    Path("stoker.toml").write_text('tcp = "m:h"\n')
    assert settings("m:a").config.tcp is None
    assert settings("").config.tcp == "m:h"
    assert "both given" in refused("m:a --tcp m:h")


def test_a_wrong_value_names_its_flag() -> None:
    assert refused("-t x").startswith("-t: 'x' is not a number of seconds")
    assert refused("--timeout-keep-alive x").startswith("--timeout-keep-alive: ")
