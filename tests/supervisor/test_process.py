"""What the whole process tree has: pid file, user, mask, directory, variables, names."""

from __future__ import annotations

import os
import pwd
import re
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.supervisor.harness import ENVIRONMENT, Server, wait_for

from stoker.config import Config
from stoker.errors import BootError, ConfigError
from stoker.supervisor.pidfile import PidFile
from stoker.supervisor.privileges import identity

Start = Callable[..., Server]
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    servers: list[Server] = []

    def started(**options: object) -> Server:
        servers.append(Server(tmp_path, **options))
        return servers[-1]

    yield started
    for server in servers:
        server.stop()


# The pid file


def test_the_pid_file_is_whole_and_goes_with_us(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    ours = PidFile.write(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    assert os.listdir(tmp_path) == ["pid"]
    assert not os.get_inheritable(ours.fd)
    ours.remove()
    assert os.listdir(tmp_path) == []
    ours.remove()


@pytest.mark.parametrize("text", ["1\n", "ours\n", "", "nonsense"])
def test_a_stale_pid_file_is_replaced_whoever_has_its_number_now(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pid"
    path.write_text(text.replace("ours", str(os.getpid())))
    ours = PidFile.write(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    ours.remove()


def test_a_running_servers_pid_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    theirs = PidFile.write(str(path))
    with pytest.raises(BootError, match=rf"a server is running with the pid file .*pid \(process {os.getpid()}\)"):
        PidFile.write(str(path))
    assert os.listdir(tmp_path) == ["pid"]
    theirs.remove()


def test_a_pid_file_that_is_no_longer_ours_stays(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    ours = PidFile.write(str(path))
    path.unlink()
    path.write_text("12345\n")
    ours.remove()
    assert path.read_text() == "12345\n"


def test_a_pid_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(BootError, match=r"the pid file .*/nowhere/pid cannot be written: No such file or directory"):
        PidFile.write(str(tmp_path / "nowhere" / "pid"))


def test_the_pid_file_of_a_server(start: Start, tmp_path: Path) -> None:
    server = start(pid="the.pid").ready()
    assert (tmp_path / "the.pid").read_text() == f"{server.pid}\n"
    other = Server(tmp_path, pid="the.pid")
    assert other.wait() == 3
    server.wait_log(rf"a server is running with the pid file .*the.pid \(process {server.pid}\)")
    server.kill(signal.SIGKILL)
    server.wait()
    assert (tmp_path / "the.pid").exists()
    again = start(pid="the.pid")
    wait_for(lambda: (tmp_path / "the.pid").read_text() == f"{again.pid}\n", "the stale file is replaced")
    again.ready(2)
    again.kill()
    assert again.wait() == 0
    assert not (tmp_path / "the.pid").exists()


# Who we are


def test_nobody_else() -> None:
    assert identity(Config()) is None
    assert identity(Config(user=str(os.geteuid()), group=str(os.getegid()))) is None


@root
def test_user_and_group() -> None:
    by_name = identity(Config(user="nobody"))
    assert by_name is not None
    assert (by_name.uid, by_name.gid) == (NOBODY.pw_uid, NOBODY.pw_gid)
    assert by_name.gid in by_name.groups
    assert identity(Config(user=str(NOBODY.pw_uid))) == by_name
    numbers = identity(Config(user="54321", group="54322"))
    assert numbers is not None
    assert (numbers.uid, numbers.gid, numbers.groups) == (54321, 54322, (54322,))
    group = identity(Config(group="54322"))
    assert group is not None
    assert (group.uid, group.gid) == (0, 54322)
    with pytest.raises(ConfigError, match=r"--user 54321: there is no such user, so its group is not known"):
        identity(Config(user="54321"))


@root
def test_only_root_becomes_somebody_else() -> None:
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.setresuid(NOBODY.pw_uid, NOBODY.pw_uid, NOBODY.pw_uid)
            identity(Config(user="root"))
        except ConfigError as error:
            status = 0 if "--user root: only root can become somebody else" in str(error) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def identities(pid: int) -> tuple[list[str], list[str], list[str]]:
    status = Path(f"/proc/{pid}/status").read_text()
    found = [re.findall(rf"^{name}:\s+(.*)$", status, re.M)[0].split() for name in ("Uid", "Gid", "Groups")]
    return found[0], found[1], found[2]


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that somebody else can reach; those of pytest are for their owner alone."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        (path / "record").touch()
        (path / "record").chmod(0o666)
        yield path


@root
@pytest.mark.parametrize("preload", ["false", "true"])
def test_workers_are_nobody_before_they_import(start: Start, open_path: Path, preload: str) -> None:
    server = start(
        user="nobody", preload=preload, record=open_path / "record", bind=f"unix:{open_path}/s",
        error_logfile=open_path / "errors", access_logfile=open_path / "access",
    )  # fmt: skip
    errors = open_path / "errors"
    wait_for(lambda: errors.exists() and "is ready" in errors.read_text(), "the worker")
    [worker] = server.workers()
    uid, gid = str(NOBODY.pw_uid), str(NOBODY.pw_gid)
    assert identities(worker) == ([uid] * 4, [gid] * 4, [gid])
    assert (open_path / "record").read_text().split()[1:3] == [uid, gid]
    for name in ("s", "errors", "access"):
        assert (open_path / name).stat().st_uid == NOBODY.pw_uid, name
    errors.rename(open_path / "errors.1")
    if preload == "false":
        errors.touch()
        os.chown(errors, NOBODY.pw_uid, NOBODY.pw_gid)
        server.kill(signal.SIGUSR1)
        wait_for(lambda: "opened its logs again" in errors.read_text(), "the worker's log")
        assert identities(server.pid)[0] == ["0"] * 4
    else:
        assert identities(server.pid) == ([uid] * 4, [gid] * 4, [gid]), "no code of the application runs as root"
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: (open_path / "errors.1").read_text().count("is ready") == 2, "another worker")
        assert identities(server.workers()[0])[0] == [uid] * 4


# Mask, directory, variables, name


def test_umask_chdir_and_variables(start: Start, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "vars").write_text("FROM_FILE=yes\nHOME=/wrong\n")
    server = start(umask="027", chdir="sub", env_file="vars", record=tmp_path / "record", pid="p", bind="unix:s")
    server.ready()
    fields = (tmp_path / "record").read_text().split()
    assert fields[3:] == ["0o27", str(tmp_path / "sub"), "yes"]
    assert stat.S_IMODE((tmp_path / "sub" / "p").stat().st_mode) == 0o640
    assert stat.S_ISSOCK((tmp_path / "sub" / "s").stat().st_mode)
    server.kill(signal.SIGHUP)
    server.wait_log("every worker is new")
    assert "no effect" not in server.log(), "--chdir means the same directory as at the start"


def test_variables_are_read_again_by_a_reload(start: Start, tmp_path: Path) -> None:
    (tmp_path / "vars").write_text("FROM_FILE=one\n")
    server = start(env_file="vars", record=tmp_path / "record").ready()
    (tmp_path / "vars").write_text("FROM_FILE\n")
    server.kill(signal.SIGHUP)
    server.wait_log("no reload: vars line 1 is not NAME=VALUE")
    (tmp_path / "vars").write_text("FROM_FILE=two\n")
    server.kill(signal.SIGHUP)
    server.wait_log("every worker is new")
    assert [line.split()[5] for line in (tmp_path / "record").read_text().splitlines()] == ["one", "two"]


def test_variables_that_are_wrong_end_the_start(start: Start, tmp_path: Path) -> None:
    (tmp_path / "vars").write_text("nonsense\n")
    server = start(env_file="vars")
    assert server.wait() == 2
    assert "vars line 1 is not NAME=VALUE" in server.log()


def test_the_masters_name(start: Start) -> None:
    server = start(proc_name="shop").ready()
    assert Path(f"/proc/{server.pid}/cmdline").read_text().rstrip("\0") == "shop: master [fake:app]"


def test_the_masters_name_imports_nothing_that_gevent_patches() -> None:
    code = """if True:
        import sys
        from stoker.supervisor.title import set_title
        set_title("a name")
        assert open("/proc/self/cmdline").read().startswith("a name")
        assert not {"logging", "threading", "ssl", "queue", "asyncio"} & set(sys.modules)
    """
    result = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_without_setproctitle_the_name_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    from stoker.supervisor import title

    monkeypatch.setattr(title.PathFinder, "find_spec", lambda *_: None)
    before = Path("/proc/self/cmdline").read_bytes()
    title.set_title("another")
    assert Path("/proc/self/cmdline").read_bytes() == before


def test_a_reload_moves_the_log(start: Start, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "options").write_text("error_logfile=one\n")
    server = start(options=tmp_path / "options", chdir="sub")
    one, two = tmp_path / "sub" / "one", tmp_path / "sub" / "two"
    wait_for(lambda: one.exists() and "is ready" in one.read_text(), "the worker")
    count = len(os.listdir(f"/proc/{server.pid}/fd"))
    (tmp_path / "options").write_text("error_logfile=two\n")
    server.kill(signal.SIGHUP)
    wait_for(lambda: two.exists() and "every worker is new" in two.read_text(), "the reload")
    wait_for(lambda: len(os.listdir(f"/proc/{server.pid}/fd")) == count, "the former file is closed")
