"""Listeners against the real kernel: every kind of address, every refusal."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tests.net.sockets import Open, accept, connect, exchange, needs_ipv6

from stoker import log
from stoker.config import Config
from stoker.net import listeners
from stoker.net.listeners import ListenError, open_listeners, open_slot

# What can be bound


@pytest.mark.parametrize(
    ("bind", "family", "address", "host"),
    [
        ("127.0.0.1:0", socket.AF_INET, "http://127.0.0.1:{}", "127.0.0.1"),
        pytest.param("[::1]:0", socket.AF_INET6, "http://[::1]:{}", "::1", marks=needs_ipv6),
        ("0.0.0.0:0", socket.AF_INET, "http://0.0.0.0:{}", socket.gethostname()),
    ],
)
def test_tcp(listen: Open, bind: str, family: int, address: str, host: str) -> None:
    [[listener]] = listen(bind)
    port = listener.sock.getsockname()[1]
    assert listener.family == family
    assert listener.address == address.format(port)
    assert listener.server == (host, port)
    assert listener.fileno() >= 3
    assert not listener.sock.get_inheritable()
    assert listener.sock.getblocking() is False
    assert listener.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    exchange(listener)


def test_a_raw_server_is_not_called_http(listen: Open) -> None:
    [[listener]] = listen("127.0.0.1:0", tcp="examples.echo:handle")
    assert listener.address.startswith("tcp://127.0.0.1:")


@needs_ipv6
def test_a_name_is_every_address_that_it_has_on_one_port(listen: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, **_: object) -> list[object]:
        assert host == "localhost"
        six = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0))
        return [six, six, (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    [both] = listen("localhost:0")
    assert {listener.family for listener in both} == {socket.AF_INET, socket.AF_INET6}
    assert len({listener.server[1] for listener in both}) == 1
    for listener in both:
        exchange(listener)


def test_localhost(listen: Open) -> None:
    [some] = listen("localhost:0")
    for listener in some:
        assert listener.sock.getsockname()[0] in ("127.0.0.1", "::1")
        exchange(listener)


def test_of_a_names_addresses_one_may_be_missing_but_not_all(listen: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = ["203.0.113.1", "127.0.0.1"]

    def resolve(_: str, port: int, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    [[listener]] = listen("app.example:0")
    assert listener.sock.getsockname()[0] == "127.0.0.1"
    addresses[1] = "203.0.113.2"
    with pytest.raises(ListenError, match=r"app.example:0: 203\.0\.113\.2 is not an address of this machine"):
        listen("app.example:0")


@needs_ipv6
def test_no_host_is_every_address_of_ipv4_and_ipv6(listen: Open) -> None:
    [both] = listen(":0")
    assert {listener.sock.getsockname()[0] for listener in both} == {"0.0.0.0", "::"}
    port = both[0].server[1]
    for host in ("127.0.0.1", "::1"):
        socket.create_connection((host, port), 5).close()


@needs_ipv6
def test_ipv6_leaves_ipv4s_port_free(listen: Open) -> None:
    [[six]] = listen("[::]:0")
    port = six.server[1]
    assert six.sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
    [[four]] = listen(f"0.0.0.0:{port}")
    exchange(six)
    exchange(four)


def test_nodelay_is_inherited_by_what_is_accepted(listen: Open) -> None:
    [[listener]] = listen("127.0.0.1:0")
    with connect(listener), accept(listener) as server:
        assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_in_time_wait_is_bound_again(listen: Open) -> None:
    [[listener]] = listen("127.0.0.1:0")
    port = listener.server[1]
    with connect(listener) as client:
        accept(listener).close()  # the server closes first: TIME_WAIT is on its side
        assert client.recv(1) == b""
    listener.close()
    listen(f"127.0.0.1:{port}")


def test_reuse_port_is_a_socket_for_each_slot(listen: Open) -> None:
    sets = listen("127.0.0.1:0", reuse_port=True, workers=3)
    assert len(sets) == 3
    assert len({one.sock.getsockname() for [one] in sets}) == 1
    assert [one.slot for [one] in sets] == [0, 1, 2]
    clients = [connect(sets[0][0]) for _ in range(60)]
    counts = []
    for [one] in sets:
        count = 0
        while True:
            try:
                one.sock.accept()[0].close()
            except BlockingIOError:
                break
            count += 1
        counts.append(count)
    assert sum(counts) == 60
    assert all(counts), "the kernel spreads over all"
    for client in clients:
        client.close()


def test_reuse_port_shares_a_unix_socket(listen: Open, tmp_path: Path) -> None:
    first, second = listen("127.0.0.1:0", f"unix:{tmp_path}/s", reuse_port=True, workers=2)
    assert first[1] is second[1]
    assert first[0] is not second[0]


def test_one_more_slot_and_one_less(listen: Open) -> None:
    config = Config(bind="127.0.0.1:0", reuse_port=True, workers=1)
    [first] = listen("127.0.0.1:0", reuse_port=True, workers=1)
    second = open_slot(config, first, 1)
    assert second[0].sock.getsockname() == first[0].sock.getsockname()
    second[0].close()
    exchange(first[0])


def test_without_reuse_port_there_is_one_set(listen: Open) -> None:
    assert len(listen("127.0.0.1:0", workers=4)) == 1


def test_the_backlog_is_the_kernels(listen: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(log, "warning", said.append)
    most = int(Path("/proc/sys/net/core/somaxconn").read_text())
    listen("127.0.0.1:0", backlog=most)
    assert said == []
    listen("127.0.0.1:0", backlog=most + 1)
    assert len(said) == 1
    assert f"--backlog {most + 1}" in said[0]
    assert f"{most} connections" in said[0]


# Unix sockets


def test_unix_mode_and_removal(listen: Open, tmp_path: Path) -> None:
    path = tmp_path / "s"
    before = os.umask(0o077)
    try:
        [[listener]] = listen(f"unix:{path}", socket_mode=0o662)
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o662
    assert listener.address == f"unix:{path}"
    assert listener.server == ("localhost", 80)
    exchange(listener)
    listener.remove()
    assert not path.exists()


def test_a_stale_socket_is_replaced(listen: Open, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    [[listener]] = listen(f"unix:{path}")
    exchange(listener)


def test_a_live_socket_is_left_alone(listen: Open, tmp_path: Path) -> None:
    [[listener]] = listen(f"unix:{tmp_path}/s")
    with pytest.raises(ListenError, match="another program listens there"):
        listen(f"unix:{tmp_path}/s")
    accept(listener).close()  # the question whether it is alive
    exchange(listener)


def test_a_live_socket_with_a_full_queue_is_left_alone(listen: Open, tmp_path: Path) -> None:
    [[listener]] = listen(f"unix:{tmp_path}/s", backlog=1)
    clients = [connect(listener), connect(listener)]
    with pytest.raises(ListenError, match="another program listens there"):
        listen(f"unix:{tmp_path}/s")
    for client in clients:
        client.close()


def test_a_file_is_never_removed(listen: Open, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(ListenError, match="a file of this name that is no socket"):
        listen(f"unix:{tmp_path}/s")
    assert (tmp_path / "s").read_text() == "precious"


def test_a_successors_socket_is_not_removed(listen: Open, tmp_path: Path) -> None:
    [[mine]] = listen(f"unix:{tmp_path}/s")
    os.unlink(tmp_path / "s")
    [[successor]] = listen(f"unix:{tmp_path}/s")
    mine.remove()
    mine.close()
    exchange(successor)


def test_what_cannot_be_a_path(listen: Open, tmp_path: Path) -> None:
    with pytest.raises(ListenError, match=r"the path has \d+ bytes, a unix socket's at most 107"):
        listen(f"unix:{tmp_path}/{'x' * 108}")
    with pytest.raises(ListenError, match=r"there is no directory .*/nowhere; make it first"):
        listen(f"unix:{tmp_path}/nowhere/s")


@pytest.mark.parametrize("form", ["unix:@{}", "@{}"])
def test_abstract(listen: Open, form: str) -> None:
    name = f"stoker-test-{os.getpid()}-{len(form)}"
    [[listener]] = listen(form.format(name))
    assert listener.address == f"unix:@{name}"
    exchange(listener)
    with pytest.raises(ListenError, match="another program listens there"):
        listen(form.format(name))


# Refusals


def test_in_use(listen: Open) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ListenError) as refused:
            listen(f"127.0.0.1:{port}")
    said = str(refused.value)
    assert f"cannot listen on 127.0.0.1:{port}: 127.0.0.1:{port} is in use" in said
    assert f"sport = :{port}" in said
    assert "--bind" in said


def test_an_address_that_another_option_has_bound(listen: Open) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(ListenError, match=rf"overlaps with --bind 127.0.0.1:{port}, which this server has bound"):
        listen(f"127.0.0.1:{port}", f"0.0.0.0:{port}")


def test_a_failure_leaves_nothing_open(listen: Open, tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ListenError):
        listen("127.0.0.1:0", f"unix:{tmp_path}/s", "203.0.113.1:0", reuse_port=True, workers=2)
    assert os.listdir("/proc/self/fd") == before
    assert not (tmp_path / "s").exists()


def test_not_an_address_of_ours(listen: Open) -> None:
    with pytest.raises(ListenError, match=r"203\.0\.113\.1 is not an address of this machine"):
        listen("203.0.113.1:0")


def test_a_name_that_does_not_resolve(listen: Open) -> None:
    with pytest.raises(ListenError, match=r"the name 'no-such-host\.invalid' does not resolve"):
        listen("no-such-host.invalid:80")


def test_a_port_for_root_alone() -> None:
    """As another user: root may bind every port."""
    first = listeners._first_unprivileged_port()
    if first < 2:
        pytest.skip("this kernel lets everybody bind every port (net.ipv4.ip_unprivileged_port_start)")
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            open_listeners(Config(bind=f"127.0.0.1:{first - 1}"))
        except ListenError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    assert f"no permission to bind 127.0.0.1:{first - 1}: ports below {first} need root" in said


# Sockets of others


def test_fd(listen: Open) -> None:
    with socket.socket() as theirs:
        theirs.bind(("127.0.0.1", 0))  # bound but not yet listening, as uvicorn's parent leaves it
        fd = os.dup(theirs.fileno())
        [[listener]] = listen(f"fd://{fd}")
        assert listener.fileno() == fd
        assert listener.address == f"http://127.0.0.1:{theirs.getsockname()[1]}"
        assert not listener.sock.get_inheritable()
        exchange(listener)


def test_fd_below_three_is_moved_away() -> None:
    """The socket of inetd's style: descriptor 0."""
    program = """if True:
        import os, sys
        from stoker.config import Config
        from stoker.net.listeners import open_listeners
        [[listener]] = open_listeners(Config(bind="fd://0"))
        assert listener.fileno() >= 3
        assert os.readlink("/proc/self/fd/0") == "/dev/null"
    """
    with socket.socket() as theirs:
        theirs.bind(("127.0.0.1", 0))
        result = subprocess.run(
            [sys.executable, "-c", program], stdin=theirs.fileno(), env=environment(), capture_output=True, check=False
        )
    assert result.returncode == 0, result.stderr.decode()


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **more}


def test_fd_that_is_no_listener(listen: Open, tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="fd://9999: descriptor 9999 is not open"):
        listen("fd://9999")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(ListenError, match=f"descriptor {fd} is not a socket"):
            listen(f"fd://{fd}")
    finally:
        os.close(fd)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        with pytest.raises(ListenError, match="no stream socket"):
            listen(f"fd://{datagrams.fileno()}")
        datagrams.getsockname()  # still the caller's


def managed(program: str, count: int, extra: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run `program` as a service manager would: sockets from descriptor 3 on, and the variables set."""
    theirs = [socket.socket() for _ in range(count)]
    for one in theirs:
        one.bind(("127.0.0.1", 0))
        one.listen()
    launcher = """if True:
        import fcntl, os, sys
        fds = [int(fd) for fd in sys.argv[1].split(",")]
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 50) for fd in fds]
        for number, fd in enumerate(high):
            os.dup2(fd, 3 + number, inheritable=True)
        os.environ.setdefault("LISTEN_PID", str(os.getpid()))
        os.environ.update(LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES="web")
        os.execv(sys.executable, [sys.executable, "-c", sys.argv[2]])
    """
    numbers = [one.fileno() for one in theirs]
    try:
        return subprocess.run(
            [sys.executable, "-c", launcher, ",".join(map(str, numbers)), program],
            pass_fds=numbers,
            env=environment(**(extra or {})),
            capture_output=True,
            check=False,
        )
    finally:
        for one in theirs:
            one.close()


def test_systemd() -> None:
    result = managed(
        """if True:
        import os
        from stoker.config import Config
        from stoker.net.listeners import open_listeners
        [both] = open_listeners(Config())
        assert [one.fileno() for one in both] == [3, 4], both
        assert not any(one.sock.get_inheritable() for one in both)
        assert not [name for name in os.environ if name.startswith("LISTEN_")]
        port = both[0].server[1]
        for one in both:
            one.close()
        """,
        2,
    )
    assert result.returncode == 0, result.stderr.decode()


def test_systemd_beside_bind() -> None:
    result = managed(
        """if True:
        import os, socket
        from stoker.config import Config
        from stoker.net.listeners import open_listeners
        host, port = socket.socket(fileno=os.dup(3)).getsockname()
        [both] = open_listeners(Config(bind=(f"127.0.0.1:{port}", "127.0.0.1:0")))
        assert [one.bind for one in both] == ["LISTEN_FDS", "127.0.0.1:0"]
        """,
        1,
    )
    assert result.returncode == 0, result.stderr.decode()


def test_systemds_variables_for_another_process() -> None:
    result = managed(
        """if True:
        import os
        from stoker.config import Config
        from stoker.net.listeners import open_listeners
        [[one]] = open_listeners(Config(bind="127.0.0.1:0"))
        assert one.bind == "127.0.0.1:0"
        assert "LISTEN_FDS" not in os.environ
        """,
        1,
        {"LISTEN_PID": "1"},
    )
    assert result.returncode == 0, result.stderr.decode()
