"""Descriptors 0, 1 and 2, and how many there may be."""

import os
import resource
import subprocess
import sys
from itertools import chain, combinations

import pytest

from stoker.net import descriptors

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
CLOSED = list(chain.from_iterable(combinations((0, 1, 2), count) for count in range(4)))


@pytest.mark.parametrize("closed", CLOSED, ids=lambda closed: "closed:" + ",".join(map(str, closed)))
def test_a_socket_never_lands_on_a_standard_descriptor(closed: tuple[int, ...]) -> None:
    program = f"""if True:
        import os, socket
        from stoker.net import descriptors
        descriptors.guard()
        with socket.socket() as sock:
            assert sock.fileno() >= 3
        for fd in {closed}:
            assert os.readlink(f"/proc/self/fd/{{fd}}") == "/dev/null"
            assert os.get_inheritable(fd)
            os.write(fd, b"nothing")
            assert os.read(fd, 1) == b""
        import faulthandler, sys
        faulthandler.enable()  # as each worker does
        print("nothing", file=sys.stderr, flush=True)
        print("nothing", flush=True)
        assert sys.stdin is not None
        os._exit(7)
    """
    launcher = """if True:
        import os, sys
        for fd in eval(sys.argv[1]):
            os.close(fd)
        os.execv(sys.executable, [sys.executable, "-c", sys.argv[2]])
    """
    result = subprocess.run(
        [sys.executable, "-c", launcher, repr(closed), program], env=ENVIRONMENT, capture_output=True, check=False
    )
    assert result.returncode == 7, result.stderr.decode()


def test_what_is_open_stays_as_it_is() -> None:
    before = [os.readlink(f"/proc/self/fd/{fd}") for fd in range(3)]
    descriptors.guard()
    assert [os.readlink(f"/proc/self/fd/{fd}") for fd in range(3)] == before


def test_a_high_descriptor_stays_and_is_closed_on_exec() -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(fd, True)
    assert descriptors.above_standard(fd) == fd
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    pid = os.fork()
    if not pid:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        good = descriptors.raise_limit() == hard == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
