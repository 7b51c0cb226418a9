"""The end of a listener, and its hand-over: nobody new, nobody lost."""

import errno
import os
import select
import socket
import time
from pathlib import Path

import pytest
from tests.net.sockets import Open, accept, connect, needs_ipv6

from stoker.config import Config
from stoker.net.listeners import hand_over, open_listeners

# The end: nobody new, nobody lost


@pytest.fixture(params=["127.0.0.1:0", pytest.param("[::1]:0", marks=needs_ipv6), "unix:{}/s", "unix:@stoker-{}"])
def bind(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    text: str = request.param
    return text.format(tmp_path if text.endswith("/s") else os.getpid())


def test_who_is_queued_is_served_and_later_ones_are_refused(listen: Open, bind: str) -> None:
    [[listener]] = listen(bind)
    assert not listener.queued()
    early = [connect(listener) for _ in range(5)]
    assert listener.queued()
    early[0].sendall(b"0")
    name = listener.sock.getsockname()
    assert listener.refuse_new() is True
    assert listener.refuse_new() is True

    late = socket.socket(listener.family, socket.SOCK_STREAM)
    late.setblocking(False)
    answer = late.connect_ex(name)
    if listener.family == socket.AF_UNIX:
        assert answer == (errno.ENOENT if bind.startswith("unix:/") else errno.ECONNREFUSED)
    else:
        assert answer == errno.EINPROGRESS
        assert not select.select([], [late], [], 0.2)[1], "the SYN was answered"

    for number, client in enumerate(early):  # one at a time: no reset among the queued
        with accept(listener) as server:
            client.sendall(b"request %d" % number)
            assert b"request %d" % number in server.recv(100)
            server.sendall(b"answer")
            assert client.recv(6, socket.MSG_WAITALL) == b"answer"
        assert client.recv(1) == b""
        client.close()
    with pytest.raises(BlockingIOError):
        listener.sock.accept()

    listener.close()
    if listener.family != socket.AF_UNIX:
        assert select.select([], [late], [], 5)[1], "the SYN that is sent again after a second should be refused"
        assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(name[:2], 5)
    late.close()


def test_a_refused_client_reaches_the_successor(listen: Open) -> None:
    """Its first SYN is lost, its second, a second later, finds who listens next."""
    [[listener]] = listen("127.0.0.1:0")
    port = listener.server[1]
    listener.refuse_new()
    with socket.socket() as late:
        late.setblocking(False)
        late.connect_ex(("127.0.0.1", port))
        listener.close()
        [[successor]] = listen(f"127.0.0.1:{port}")
        late.setblocking(True)
        late.settimeout(5)
        with accept(successor) as server:
            server.sendall(b"x")
            assert late.recv(1) == b"x"


def test_an_accepted_connection_is_not_hurt_by_the_filter(listen: Open) -> None:
    """Sockets accepted after refuse_new have the filter too; a large exchange must pass it."""
    [[listener]] = listen("127.0.0.1:0")
    data = os.urandom(1 << 20)
    with connect(listener) as client:
        listener.refuse_new()
        with accept(listener) as server:
            pid = os.fork()
            if not pid:
                client.sendall(data)
                os._exit(0)
            got = b""
            while len(got) < len(data):
                got += server.recv(1 << 16)
            os.waitpid(pid, 0)
            assert got == data


def test_a_kernel_without_filters_says_so(listen: Open) -> None:
    [[listener]] = listen("127.0.0.1:0")

    class Sock:
        def fileno(self) -> int:
            return 3

        def setsockopt(self, *_: object) -> None:
            raise OSError(errno.ENOPROTOOPT, "")

    real, listener.sock = listener.sock, Sock()  # type: ignore[assignment]
    assert listener.refuse_new() is False
    listener.sock = real


def test_another_process_may_refuse_for_all(listen: Open) -> None:
    [[listener]] = listen("127.0.0.1:0")
    pid = os.fork()
    if not pid:
        os._exit(0 if listener.refuse_new() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    with pytest.raises(TimeoutError):
        connect(listener, 0.2)


# The hand-over to a successor


def test_listeners_pass_to_a_successor_with_their_queue(listen: Open, tmp_path: Path) -> None:
    before = listen("127.0.0.1:0", f"unix:{tmp_path}/s", reuse_port=True, workers=2)
    clients = [connect(before[0][0]) for _ in range(8)] + [connect(before[0][1])]
    handed = hand_over(before)
    assert all(os.get_inheritable(one.fd) for one in handed)
    names = [[one.sock.getsockname() for one in listeners] for listeners in before]
    for one in handed:
        assert os.fstat(one.fd)
    for listeners_ in before:
        for listener in listeners_:
            listener.sock.detach()
    after = open_listeners(Config(bind=("127.0.0.1:0", f"unix:{tmp_path}/s"), reuse_port=True, workers=3), handed)
    try:
        assert [[one.sock.getsockname() for one in listeners] for listeners in after[:2]] == names
        assert after[2][0].sock.getsockname() == names[0][0]
        assert after[2][1] is after[0][1] is after[1][1]
        assert not any(one.sock.get_inheritable() for listeners in after for one in listeners)
        deadline = time.monotonic() + 5
        served = 0
        while served < len(clients) and time.monotonic() < deadline:
            for listener in select.select([after[0][0], after[1][0], after[0][1]], [], [], 1)[0]:
                listener.sock.accept()[0].close()
                served += 1
        assert served == len(clients)
        after[0][1].remove()
        assert not (tmp_path / "s").exists()
    finally:
        for listeners_ in after:
            for listener in listeners_:
                listener.close()
        for client in clients:
            client.close()


def test_an_address_that_is_no_longer_wanted_takes_nobody_new(listen: Open) -> None:
    """The predecessor's workers still have their copies, and empty the queue."""
    [[old, worker]] = listen("127.0.0.1:0", f"unix:@stoker-worker-{os.getpid()}")
    worker.sock.close()
    worker.sock = old.sock.dup()
    with connect(old):
        name = old.sock.getsockname()
        handed = hand_over([[old]])
        old.sock.detach()
        [[new]] = open_listeners(Config(bind=f"unix:@stoker-{os.getpid()}"), handed)
        new.close()
        late = socket.socket()
        late.settimeout(0.2)
        with late, pytest.raises(TimeoutError):
            late.connect(name)
        accept(worker).close()
