"""What every poller promises the readiness loop."""

import os
import socket
import struct

import pytest

from stoker.engines.base import ERR, HUP, IN, OUT
from stoker.engines.epoll import EpollPoller
from stoker.engines.nonblocking import NonblockingPoller
from stoker.engines.poll import PollPoller
from stoker.engines.select import SelectPoller

MAKERS = {
    "select": SelectPoller,
    "poll": PollPoller,
    "epoll": lambda: EpollPoller(edge=False),
    "nonblocking": lambda: NonblockingPoller(spin=False),
}
ASKING = [name for name in MAKERS if name != "nonblocking"]


@pytest.fixture(params=MAKERS)
def poller(request):
    made = MAKERS[request.param]()
    yield made
    made.close()


@pytest.fixture
def asking(request):
    made = MAKERS[request.param]()
    yield made
    made.close()


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def test_registering_twice_raises(poller, pair):
    fd = pair[0].fileno()
    poller.add(fd, IN)
    with pytest.raises(FileExistsError):
        poller.add(fd, OUT)
    poller.change(fd, 0)
    with pytest.raises(FileExistsError):
        poller.add(fd, IN)


def test_changing_and_removing_what_is_not_there_raises(poller, pair):
    fd = pair[0].fileno()
    for _ in range(2):
        with pytest.raises((FileNotFoundError, KeyError)):
            poller.change(fd, IN)
        with pytest.raises((FileNotFoundError, KeyError)):
            poller.remove(fd)
        poller.add(fd, IN)
        poller.remove(fd)


def test_tells_what_is_ready_until_it_is_dealt_with(poller, pair):
    ours, theirs = pair
    poller.add(ours.fileno(), IN)
    theirs.send(b"x")
    for _ in range(2):
        assert poller.wait(1.0) == [(ours.fileno(), IN)]
    poller.change(ours.fileno(), OUT)
    assert poller.wait(1.0) == [(ours.fileno(), OUT)]
    poller.change(ours.fileno(), 0)
    assert poller.wait(0) == []
    poller.remove(ours.fileno())
    assert poller.wait(0) == []


@pytest.mark.parametrize("asking", ASKING, indirect=True)
def test_is_silent_about_what_is_not_ready(asking, pair):
    ours, _ = pair
    asking.add(ours.fileno(), IN)
    assert asking.wait(0.01) == []


def test_a_reset_is_told_though_nothing_is_watched_for(poller):
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    with ours:
        ours.setblocking(False)
        client.send(b"unread")
        poller.add(ours.fileno(), 0)
        for _ in range(3):
            assert poller.wait(0) == []
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        events = []
        for _ in range(50):
            events += poller.wait(0.05)
            if events:
                break
        assert events
        assert events[0][0] == ours.fileno()
        assert events[0][1] & (HUP | ERR)
        poller.remove(ours.fileno())


def test_select_refuses_a_descriptor_past_its_maps():
    poller = SelectPoller()
    with pytest.raises(ValueError, match="1024"):
        poller.add(1024, IN)
    assert poller.wait(0) == []


def test_the_pause_of_nonblocking_grows_while_nothing_happens_and_ends_with_progress(monkeypatch):
    slept = []
    monkeypatch.setattr("stoker.engines.nonblocking.time.sleep", slept.append)

    class Loop:
        progress = 0

    poller = NonblockingPoller(spin=False)
    poller.loop = Loop()
    for _ in range(12):
        poller.wait(1.0)
    assert slept[0] == pytest.approx(50e-6)
    assert slept == sorted(slept)
    assert slept[-1] == pytest.approx(0.01)
    slept.clear()
    poller.wait(0.004)  # never longer than the loop's next deadline
    assert slept == [0.004]
    poller.wait(0)
    assert slept == [0.004]
    Loop.progress = 1
    poller.wait(1.0)
    assert slept == [0.004]
    poller.wait(1.0)
    assert slept[1:] == [pytest.approx(50e-6)]


def test_spinning_never_pauses(monkeypatch):
    monkeypatch.setattr("stoker.engines.nonblocking.time.sleep", lambda _: pytest.fail("paused"))
    poller = NonblockingPoller(spin=True)
    reader, writer = os.pipe()
    poller.add(reader, IN)
    for _ in range(5):
        assert poller.wait(1.0) == [(reader, IN)]
    os.close(reader)
    os.close(writer)
