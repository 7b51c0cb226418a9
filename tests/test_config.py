"""`Config`: the values it takes, what follows from them, and what it refuses."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker import engines
from stoker.config import DEFAULTS, OPTIONS, Config, cpus
from stoker.config.table import ENGINES, POOLED, WORKER_CLASSES
from stoker.errors import ConfigError


def refused(**options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        Config(**options)
    return str(caught.value)


def test_defaults_of_the_issue() -> None:
    config = Config(app="m:a")
    assert (config.bind, config.engine, config.workers, config.threads) == (("127.0.0.1:8000",), "epoll", 1, 0)
    times = (config.header_timeout, config.body_timeout, config.write_timeout, config.keep_alive)
    assert times == (10, 30, 30, 75)
    assert (config.request_timeout, config.worker_timeout, config.graceful_timeout) == (0, 30, 30)
    assert (config.limit_request_line, config.limit_request_fields, config.limit_request_field_size) == (
        8190,
        100,
        8190,
    )
    assert (config.limit_request_head, config.limit_request_body, config.min_rate) == (65536, 1 << 30, 0)
    assert (config.backlog, config.max_connections, config.max_connections_per_ip) == (2048, None, 0)
    assert (config.on_overload, config.trigger, config.header_map, config.access_log) == (
        "wait",
        "level",
        "drop",
        False,
    )


def test_a_config_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().workers = 3  # type: ignore[misc]
    with pytest.raises(TypeError, match="wrkers"):
        Config(wrkers=3)  # type: ignore[call-arg]


def test_every_option_is_described() -> None:
    for name, option in OPTIONS.items():
        assert option.help, name
        assert option.metavar or isinstance(DEFAULTS[name], bool) or name == "access_log", name
        assert set(option.engines) <= set(engines.REGISTRY), name
        assert set(option.needs) <= set(OPTIONS), name
    flags = [flag for name, option in OPTIONS.items() for flag in (name, *option.aliases, *option.constants)]
    assert len(flags) == len(set(flags))


def test_the_engines_of_the_table_are_those_of_the_registry() -> None:
    assert set(ENGINES) == set(engines.REGISTRY)
    assert set(WORKER_CLASSES.values()) <= set(engines.REGISTRY)
    assert {name for name, info in engines.REGISTRY.items() if info.pooled} == set(POOLED)


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        ("workers", "3", 3),
        ("workers", "auto", cpus.available()),
        ("keep_alive", "0.5", 0.5),
        ("keep_alive", 5, 5.0),
        ("limit_request_body", "64k", 65536),
        ("limit_request_body", "10M", 10 << 20),
        ("limit_request_body", "0", 0),
        ("limit_request_body", "2g", 2 << 30),
        ("socket_mode", "660", 0o660),
        ("socket_mode", "0o600", 0o600),
        ("umask", 0o22, 0o22),
        ("bind", "0.0.0.0:80", ("0.0.0.0:80",)),
        (
            "bind",
            ":80, [::1]:80,unix:/run/a.sock,@name,fd://3",
            (":80", "[::1]:80", "unix:/run/a.sock", "unix:@name", "fd://3"),
        ),
        ("bind", ["localhost:0", "localhost:0"], ("localhost:0", "localhost:0")),
        ("bind", "[fe80::1%eth0]:80", ("[fe80::1%eth0]:80",)),
        ("reload_dir", "a,b", None),
        ("preload", "yes", True),
        ("preload", "off", False),
        ("engine", "uvicorn.workers.UvicornWorker", "asyncio"),
        ("engine", "sync", "epoll"),
        ("engine", "gevent_pywsgi", "gevent"),
        ("user", "root", "root"),
        ("user", "0", "0"),
        ("root_path", "/app", "/app"),
        ("color", "never", "never"),
        ("log_level", "trace", "debug"),
    ],
)
def test_values(name: str, given: object, kept: object) -> None:
    more: dict[str, Any] = {"reload": True} if name == "reload_dir" else {}
    config = Config(**{name: given}, **more)
    assert getattr(config, name) == (("a", "b") if name == "reload_dir" else kept)


@pytest.mark.parametrize(
    ("name", "given", "complaint"),
    [
        ("workers", "0", "out of range"),
        ("workers", "many", "not a whole number"),
        ("workers", True, "not a whole number"),
        ("workers", "1_0", "not a whole number"),
        ("workers", "٣", "not a whole number"),
        ("threads", -1, "out of range"),
        ("backlog", "1e3", "not a whole number"),
        ("keep_alive", "-1", "not a number of seconds"),
        ("keep_alive", "nan", "not a number of seconds"),
        ("keep_alive", float("inf"), "not a number of seconds"),
        ("keep_alive", "", "not a number of seconds"),
        ("header_timeout", 0, "cannot be switched off"),
        ("limit_request_body", "1t", "not a size"),
        ("limit_request_body", "1.5m", "not a size"),
        ("limit_request_line", "1", "too small"),
        ("socket_mode", "999", "not a mode"),
        ("umask", 0o1000, "not a mode"),
        ("bind", "", "no address"),
        ("bind", "8000", "not an address"),
        ("bind", "localhost", "not an address"),
        ("bind", "::1:8000", "not an address"),
        ("bind", "a b:80", "not an address"),
        ("bind", "http://a:80", "not an address"),
        ("bind", "a:65536", "not an address"),
        ("bind", "unix:", "names no socket"),
        ("bind", "unix:///run/x", "names no socket"),
        ("bind", "@", "names no socket"),
        ("bind", "fd://x", "not fd://N"),
        ("bind", "a:80,a:80", "given twice"),
        ("bind", 80, "not a list"),
        ("preload", "maybe", "neither true nor false"),
        ("preload", 1, "neither true nor false"),
        ("engine", "eventlet", "not one of process, thread"),
        ("on_overload", "drop", "not one of wait, 503, close"),
        ("user", "no-such-user", "there is no user"),
        ("group", "no-such-group", "there is no group"),
        ("chdir", "/no/such/place", "not a directory"),
        ("root_path", "app", "not a path"),
        ("root_path", "/app/", "not a path"),
        ("pid", "", "empty"),
        ("pid", "a\0b", "NUL"),
        ("pid", 3, "not text"),
        ("app", "", "empty"),
        ("app", 3, "nor callable"),
        ("tcp", [], "nor callable"),
    ],
)
def test_wrong_values(name: str, given: object, complaint: str) -> None:
    message = refused(**{name: given})
    assert complaint in message
    assert message.startswith(f"{name}: ")


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(alphabet=st.characters(), max_size=12),
    st.text(alphabet="0123456789.:[]@/-+ekmgx_,", max_size=12),
    st.binary(max_size=4),
    st.lists(st.text(max_size=4), max_size=3),
)


@pytest.mark.parametrize("name", OPTIONS)
@settings(max_examples=40)
@given(value=ANYTHING)
def test_whatever_is_given_is_kept_or_refused(name: str, value: object) -> None:
    """A check raises ValueError or returns a value, and what it returns passes it again, unchanged."""
    check = OPTIONS[name].check
    try:
        kept = check(value)
    except ValueError:
        return
    assert check(kept) == kept


def test_where_options_have_no_effect() -> None:
    assert "trigger has no effect on engine poll (it is for epoll)" in refused(engine="poll", trigger="edge")
    assert "threads has no effect on engine thread" in refused(engine="thread", threads=3)
    assert "its own greenlet" in refused(engine="gevent", threads=3)
    assert Config(engine="gevent", patch=False, threads=3).threads == 3
    assert "patch has no effect on engine epoll" in refused(patch=False)
    assert "keep_alive has no effect on a raw TCP handler" in refused(tcp="m:h", keep_alive=3)
    assert "factory has no effect on a raw TCP handler" in refused(app="m:h", interface="tcp", factory=True)
    assert "without --reload" in refused(reload_dir="src")
    assert "without --max-requests" in refused(max_requests_jitter=3)
    assert "without --access-log" in refused(access_logformat="%(h)s")


def test_what_follows() -> None:
    assert Config(engine="gthread").threads == 1
    assert Config(engine="gthread", threads=8).threads == 8
    assert Config(access_logfile="/dev/null").access_log is True
    assert Config(access_logfile="/dev/null", access_logformat="%(h)s").access_log is True
    assert Config(access_logfile="/dev/null", access_log=False).access_log is False
    assert Config(access_log=True).access_logfile == "-"
    assert Config(tcp="m:h").interface == "tcp"
    handler = Config(app="m:h", interface="tcp")
    assert (handler.app, handler.tcp) == (None, "m:h")


def test_contradictions() -> None:
    assert "both given" in refused(app="m:a", tcp="m:h")
    assert "contradicts" in refused(tcp="m:h", interface="wsgi")
    assert "on_overload 503" in refused(tcp="m:h", on_overload="503")
    assert "cannot be imported again" in refused(app=len, reload=True)
    assert "cannot be imported again" in refused(tcp=len, reload=True)


def test_objects_are_kept() -> None:
    assert Config(app=len).app is len
    assert Config(tcp=len).tcp is len


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({}, 64),
        ({"proc/self/cgroup": "0::/\n"}, 64),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 64),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n"}, 2),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
                "sys/fs/cgroup/a/cpu.max": "300000 100000\n",
            },
            3,
        ),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "5000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "nonsense\n"}, 64),
        (
            {
                "proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/x\n",
                "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/x\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
    ],
)
def test_available_cpus(files: dict[str, str], count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    assert cpus.available(tree(tmp_path, files)) == count


def test_available_cpus_here() -> None:
    assert 1 <= cpus.available() <= len(os.sched_getaffinity(0))
