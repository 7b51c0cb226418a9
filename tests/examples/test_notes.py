"""What docs/notes.md says of the notes' programs, shown by running them as they stand (their port apart)."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = Path(__file__).with_name("notes")
RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close() sends a reset


class Program:
    """One of the notes' programs, running; what it printed is in ``output``."""

    def __init__(self, name: str, folder: Path, stdin: Any = None) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        source = (PROGRAMS / f"{name}.txt").read_text("utf-8").replace("7788", str(self.port))
        (folder / f"{name}.py").write_text(source, "utf-8")
        self.log = folder / "output"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-u", f"./{name}.py"],
                cwd=folder, stdin=stdin if stdin is not None else subprocess.PIPE, stdout=out, stderr=out,
                start_new_session=True, env={**os.environ, "PYTHONSAFEPATH": "1", "PYTHONUTF8": "1"},
            )  # fmt: skip
        self.pid = self.process.pid

    @property
    def output(self) -> str:
        return self.log.read_text("utf-8")

    def connect(self) -> socket.socket:
        """A client, as soon as the program listens."""

        def attempt() -> socket.socket | None:
            with contextlib.suppress(ConnectionRefusedError):
                return socket.create_connection(("127.0.0.1", self.port), timeout=10)
            return None

        return until(attempt, "the program to listen")  # type: ignore[no-any-return]

    def says(self, text: str) -> None:
        until(lambda: text in self.output, f"{text!r} in the output", lambda: self.output)

    def wait(self) -> int:
        return self.process.wait(10)

    def cpu(self) -> float:
        """Seconds of CPU that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def sockets(self) -> int:
        """How many sockets it holds open."""
        folder = Path(f"/proc/{self.pid}/fd")
        return sum(os.readlink(path).startswith("socket:") for path in folder.iterdir())


def until(condition: Callable[[], Any], what: str, more: Callable[[], str] = lambda: "") -> Any:
    deadline = time.monotonic() + 10
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}: {more()}"
        time.sleep(0.01)
    return value


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def start(name: str, **more: Any) -> Program:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(Program(name, folder, **more))
        return started[-1]

    yield start
    for program in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.process.wait(10)
        if program.process.stdin:
            program.process.stdin.close()


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()


def quiet(client: socket.socket, seconds: float = 0.3) -> bool:
    """Nothing comes within this time."""
    return not select.select([client], [], [], seconds)[0]


# The states, and the rest before the programs.


def test_there_are_eleven_states() -> None:
    """RFC 9293, 3.3.2."""
    states = (
        "LISTEN SYN-SENT SYN-RECEIVED ESTABLISHED FIN-WAIT-1 FIN-WAIT-2 CLOSE-WAIT CLOSING LAST-ACK TIME-WAIT CLOSED"
    )
    assert len(states.split()) == 11


def test_time_wait_is_sixty_seconds_here() -> None:
    """The kernel's timer says so (/proc/net/tcp: timer 3, its time in hundredths of a second)."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        mine = client.getsockname()[1]
        other, _ = server.accept()
        client.close()
        assert other.recv(1) == b""
        other.close()
    key = f"0100007F:{mine:04X} 0100007F:{port:04X} 06"
    lines = until(lambda: [line for line in Path("/proc/net/tcp").read_text().splitlines() if key in line], "TIME_WAIT")
    timer, hundredths = re.search(r" (\d\d):([0-9A-F]{8}) ", lines[0]).groups()  # type: ignore[union-attr]
    assert timer == "03"
    assert 5800 <= int(hundredths, 16) <= 6000


def test_a_packet_leaves_with_64() -> None:
    assert Path("/proc/sys/net/ipv4/ip_default_ttl").read_text().strip() == "64"


def test_the_backlog_counts_finished_handshakes() -> None:
    """listen(5): six connections are made although nobody accepts; the seventh waits (listen(2))."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(5)
        done = 0
        for _ in range(12):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            assert client.connect_ex(server.getsockname()) == errno.EINPROGRESS
            if select.select([], [client], [], 0.3)[1]:
                done += 1
        assert done == 6


def test_a_raw_socket_needs_a_capability() -> None:
    """CAP_NET_RAW: without it, raw(7) is refused."""
    code = (
        "import os, socket\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)\n"
        "except PermissionError: print('refused')\n"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "refused\n"
    )


def test_reuseaddr_does_not_start_a_server_twice() -> None:
    """It lets a server start beside TIME_WAIT; two that listen need SO_REUSEPORT."""
    with socket.socket() as first, socket.socket() as second:
        for server in (first, second):
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first.bind(("127.0.0.1", 0))
        first.listen(5)
        with pytest.raises(OSError, match="Address already in use"):
            second.bind(first.getsockname())
    with socket.socket() as first, socket.socket() as second:
        for server in (first, second):
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        first.bind(("127.0.0.1", 0))
        second.bind(first.getsockname())
        first.listen(5)
        second.listen(5)


# Processes, and the client that opens connections.


def test_process_leaves_a_zombie_and_the_listener_in_the_child(run: Callable[..., Program]) -> None:
    program = run("process")
    client = program.connect()
    program.says("接下来创建新的进程")
    children = Path(f"/proc/{program.pid}/task/{program.pid}/children")
    child = int(until(lambda: children.read_text().split(), "a child")[0])
    child_fds = Path(f"/proc/{child}/fd")
    client.sendall(b"x")
    program.says("b'x'")
    sockets = [os.readlink(path) for path in child_fds.iterdir() if os.readlink(path).startswith("socket:")]
    assert len(sockets) == 2  # its client's, and the listener's, which it has no use for
    client.close()
    until(lambda: f"State:\tZ" in Path(f"/proc/{child}/status").read_text(), "a zombie")  # noqa: F541
    time.sleep(0.2)  # nothing reaps it while nobody connects
    assert "State:\tZ" in Path(f"/proc/{child}/status").read_text()


def test_client_holds_one_connection_not_many(run: Callable[..., Program]) -> None:
    """Each turn of its loop drops the former socket, and Python closes what nobody holds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = (
            (PROGRAMS / "client.txt")
            .read_text("utf-8")
            .replace("7788", str(port))
            .replace("print(i)", "print(i); input()")
        )
        with subprocess.Popen(
            [sys.executable, "-u", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        ) as client:
            assert client.stdin is not None
            client.stdin.write(b"3\n")
            client.stdin.flush()
            accepted = []
            for _ in range(3):
                accepted.append(server.accept()[0])
                client.stdin.write(b"\n")
                client.stdin.flush()
            for sock in accepted[:2]:
                sock.settimeout(5)
                assert sock.recv(1) == b""
            client.stdin.close()
        for sock in accepted:
            sock.close()


# Threads.


def test_thread_does_not_stop_while_a_client_is_there(run: Callable[..., Program]) -> None:
    program = run("thread")
    client = program.connect()
    client.sendall(b"x")
    program.says("b'x'")
    program.process.send_signal(signal.SIGINT)
    program.says("KeyboardInterrupt")
    with pytest.raises(subprocess.TimeoutExpired):
        program.process.wait(0.5)
    client.close()
    program.wait()


def test_thread_ends_with_a_traceback_by_a_reset(run: Callable[..., Program]) -> None:
    program = run("thread")
    client = program.connect()
    client.sendall(b"x")
    program.says("b'x'")
    reset(client)
    program.says("ConnectionResetError")
    assert "已经关闭" not in program.output


# Non-blocking.


def test_nonblocking_hides_that_it_is_out_of_descriptors(run: Callable[..., Program]) -> None:
    """`except: pass` takes EMFILE for "nobody is there"."""
    program = run("nonblocking")
    first = program.connect()
    program.says("到来")
    limit = len(os.listdir(f"/proc/{program.pid}/fd"))
    resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (limit, limit))
    second = program.connect()
    second.sendall(b"are you there?")
    first.sendall(b"I am")
    program.says("I am")
    assert "are you there?" not in program.output
    assert "Errno" not in program.output
    first.close()
    program.says("are you there?")
    second.close()


def test_except_takes_the_interrupt_too() -> None:
    """Where Ctrl-C lands inside the `try`, it is gone."""
    code = "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept:\n    pass\nprint('went on')"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "went on\n"
    )


def test_nonblocking_burns_a_core(run: Callable[..., Program]) -> None:
    program = run("nonblocking")
    program.connect().close()
    start, cpu = time.monotonic(), program.cpu()
    time.sleep(0.5)
    assert (program.cpu() - cpu) / (
        time.monotonic() - start
    ) > 0.2  # of a core, with nothing to do and this machine shared


def test_nonblocking_is_saved_from_a_reset_by_the_kernel(run: Callable[..., Program]) -> None:
    """ECONNRESET lands in `except: pass`; the next recv() gives the end of the stream."""
    program = run("nonblocking")
    client = program.connect()
    program.says("到来")
    reset(client)
    program.says("关闭了")


def test_a_list_changed_while_it_is_iterated_skips_one() -> None:
    names = ["a", "b", "c"]
    seen = []
    for name in names:
        seen.append(name)
        if name == "a":
            names.remove(name)
    assert seen == ["a", "c"]


@pytest.mark.parametrize(("before", "after", "starts"), [(0, 0, False), (0, 1, False), (1, 0, False), (1, 1, True)])
def test_starting_again_beside_time_wait(before: int, after: int, starts: bool) -> None:
    """A connection that the server closed first waits in TIME_WAIT; Linux wants SO_REUSEADDR of both servers."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, before)
        server.bind(("127.0.0.1", 0))
        server.listen(5)
        address = server.getsockname()
        with socket.create_connection(address) as client:
            server.accept()[0].close()
            assert client.recv(1) == b""
    with socket.socket() as again, contextlib.ExitStack() as stack:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, after)
        if not starts:
            stack.enter_context(pytest.raises(OSError, match="Address already in use"))
        again.bind(address)


# select.


def test_select_ends_at_once_without_a_terminal(run: Callable[..., Program]) -> None:
    """The end of standard input is readable, too."""
    program = run("select", stdin=subprocess.DEVNULL)
    assert program.wait() == 0


def test_select_needs_enter(run: Callable[..., Program]) -> None:
    program = run("select")
    client = program.connect()
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    program.process.stdin.write(b"q\n")
    program.process.stdin.flush()
    assert program.wait() == 0
    client.close()


def test_select_ends_by_one_reset(run: Callable[..., Program]) -> None:
    program = run("select")
    client = program.connect()
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    reset(client)
    assert program.wait() == 1
    assert "ConnectionResetError" in program.output


def test_select_is_held_up_by_one_that_does_not_read(run: Callable[..., Program]) -> None:
    program = run("select")
    greedy, other = program.connect(), program.connect()
    greedy.setblocking(False)
    deadline = time.monotonic() + 10
    while select.select([], [greedy], [], 0.5)[1]:
        assert time.monotonic() < deadline
        with contextlib.suppress(BlockingIOError):
            greedy.send(bytes(65536))
    other.sendall(b"hello")
    assert quiet(other, 1.0)
    greedy.close()
    other.close()


def test_select_is_bounded_by_the_number_not_by_the_count() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1100:
        pytest.skip(f"the descriptor limit of {hard} allows no descriptor past 1,024")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1100), hard))
    try:
        with socket.socket() as sock:
            high = os.dup2(sock.fileno(), 1050)
            try:
                with pytest.raises(ValueError, match="out of range"):
                    select.select([high], [], [], 0)  # one descriptor
            finally:
                os.close(high)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_select_hides_the_module() -> None:
    """`for socket in readable` gives the name `socket` to a socket."""
    names: dict[str, Any] = {}
    exec("import socket\nleft, right = socket.socketpair()\nfor socket in [left]: pass", names)
    assert not hasattr(names["socket"], "SOCK_STREAM")
    names["left"].close()
    names["right"].close()


# epoll.


def test_names_that_do_not_exist() -> None:
    for owner, name in [(sys.stdin, "fileout"), (sys.stdin, "fileerr"), (select, "EPOLLN")]:
        assert not hasattr(owner, name)
    assert hasattr(select, "EPOLLIN")


def test_poll_waits_in_the_kernel() -> None:
    """It is no polling in a loop: while it waits it takes no CPU."""
    poll = select.poll()
    before = time.process_time()
    assert poll.poll(300) == []
    assert time.process_time() - before < 0.1


def test_epoll_refuses_to_register_twice() -> None:
    with socket.socket() as sock, select.epoll() as epoll:
        epoll.register(sock, select.EPOLLIN)
        with pytest.raises(FileExistsError):
            epoll.register(sock, select.EPOLLIN)


def test_epoll_leaves_all_but_one_waiting(run: Callable[..., Program]) -> None:
    """One accept for one edge: who came together with another stays in the queue until the next one comes."""
    program = run("epoll")
    first = program.connect()
    program.says("新的客户端连接")
    program.process.send_signal(signal.SIGSTOP)
    until(lambda: "State:\tT" in Path(f"/proc/{program.pid}/status").read_text(), "it to stop")
    second, third = program.connect(), program.connect()
    program.process.send_signal(signal.SIGCONT)
    until(lambda: program.output.count("新的客户端连接") == 2, "the second client")
    third.sendall(b"are you there?")
    time.sleep(0.3)
    assert program.output.count("新的客户端连接") == 2
    assert "are you there?" not in program.output
    for client in (first, second, third):
        client.close()


def test_epoll_leaves_what_is_past_1024_bytes(run: Callable[..., Program]) -> None:
    program = run("epoll")
    client = program.connect()
    program.says("新的客户端连接")
    client.sendall(b"a" * 1024 + b"b" * 100)
    program.says("aaa")
    time.sleep(0.3)
    assert "bbb" not in program.output
    client.sendall(b"c")
    program.says("bbb")
    client.close()


def test_epoll_never_lets_go_of_a_client_that_was_reset(run: Callable[..., Program]) -> None:
    """The events are IN, ERR and HUP together, which is not equal to IN; and the edge is not told again."""
    program = run("epoll")
    client = program.connect()
    program.says("新的客户端连接")
    before = program.sockets()
    reset(client)
    time.sleep(0.3)
    assert "offline" not in program.output
    assert program.sockets() == before
    other = program.connect()  # while a client that closes in the ordinary way is let go
    until(lambda: program.sockets() == before + 1, "the second client")
    other.close()
    program.says("offline")
    assert program.sockets() == before


# Coroutines.


def lines(program: Program, count: int) -> list[str]:
    return until(lambda: len(program.output.splitlines()) >= count, "output") and program.output.splitlines()[:count]


def test_generator_begins_with_b(run: Callable[..., Program]) -> None:
    assert lines(run("generator"), 4) == ["--- B ----", "--- A ---", "--- B ----", "--- A ---"]


def test_greenlet_begins_with_a(run: Callable[..., Program]) -> None:
    assert lines(run("greenlet"), 4) == ["--- A ---", "--- B ---", "--- A ---", "--- B ---"]


def test_gevent_without_waiting_does_not_switch(run: Callable[..., Program]) -> None:
    program = run("gevent_spawn")
    assert program.wait() == 0
    assert re.findall(r"执行次序 (\d)", program.output) == list("01234" * 3)


def test_gevent_sleep_switches(run: Callable[..., Program]) -> None:
    program = run("gevent_sleep")
    program.says("执行次序 1")
    assert re.findall(r"执行次序 (\d)", program.output)[:3] == list("000")


@pytest.mark.parametrize(
    ("patch", "together"), [("", False), ("from gevent import monkey; monkey.patch_all()\n", True)]
)
def test_gevent_and_time_sleep(patch: str, together: bool) -> None:
    """`time.sleep` switches as well, once it is patched."""
    code = (
        f"{patch}import gevent, time\n"
        "start = time.monotonic()\n"
        "gevent.joinall([gevent.spawn(time.sleep, 0.3) for _ in range(4)])\n"
        "print(time.monotonic() - start)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert (float(out) < 1.1) is together


def test_gevent_download_is_python_2(run: Callable[..., Program]) -> None:
    program = run("gevent_download")
    assert program.wait() == 1
    assert "No module named 'urllib2'" in program.output


def test_percent_capital_s() -> None:
    with pytest.raises(ValueError, match="unsupported format character 'S'"):
        eval("'GET: %S' % url", {"url": "http://localhost/"})


def test_a_greenlet_that_fails_does_not_end_the_program() -> None:
    """joinall() waits, and raises only when it is asked to (raise_error=True)."""
    code = "import gevent\ngevent.joinall([gevent.spawn(lambda: 1 / 0)])\nprint('went on')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "went on\n"
    assert "ZeroDivisionError" in done.stderr


def test_a_name_taken_before_the_patch_stays_as_it_was() -> None:
    """The patch changes the attributes of the standard library's modules, not the code that has copied them."""
    code = (
        "from time import sleep\nfrom gevent import monkey\nmonkey.patch_all()\nimport time\nprint(sleep is time.sleep)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_gevent_tcp_prints_nothing_of_what_it_receives(run: Callable[..., Program]) -> None:
    """`"recv:" % data`: bytes can be indexed, so `%` takes them for a mapping, and nothing asks for anything of it."""
    program = run("gevent_tcp")
    client = program.connect()
    client.sendall(b"hello")
    assert client.recv(5) == b"hello"
    program.says("recv:\n")
    assert "hello" not in program.output
    client.close()
    with pytest.raises(TypeError, match="not all arguments converted"):
        eval("'recv:' % data", {"data": "hello"})  # a str would have failed
