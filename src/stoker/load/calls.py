"""What the load client asks of the kernel and of memory, in plain Python: for an interpreted run.

In the compiled modules inline functions of their .pxd stand in their place, with the same names and meanings. A system
call that fails gives the negative errno, since EAGAIN is an everyday answer here and an exception costs more than it.
"""

from __future__ import annotations

import os
import select
import socket
import time
from typing import Any

Address = Any  # compiled, a packed sockaddr; interpreted, what the socket module calls an address
Events = list[tuple[int, int]]

now = time.monotonic_ns  # CLOCK_MONOTONIC in nanoseconds
whole = int  # a float without its fraction


def bits(number: int) -> int:
    """The number of binary digits of a positive number."""
    return number.bit_length()


def dial(family: int, remote: Address, local: Address | None) -> int:
    """Begin a TCP connection, without waiting for it; a descriptor, or -errno.

    `local` is an address to come from: its port is chosen by connect(2), so that a port may serve many remote
    addresses (IP_BIND_ADDRESS_NO_PORT, ip(7)).
    """
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if local is not None:
            sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT, which the socket module lacks
            sock.bind(local)
        sock.connect(remote)
    except BlockingIOError:
        pass
    except OSError as error:
        sock.close()
        return -(error.errno or 1)
    return sock.detach()


def hang_up(fd: int) -> None:
    """Close a connection."""
    os.close(fd)


def receive(fd: int, buffer: bytearray, offset: int, size: int) -> int:
    """Receive once into ``buffer[offset:size]``; the number of bytes, 0 at the end of the stream, or -errno."""
    try:
        with memoryview(buffer) as view, view[offset:size] as room:
            return os.readv(fd, [room])
    except OSError as error:
        return -(error.errno or 1)


def transmit(fd: int, data: bytes, start: int, end: int) -> int:
    """Send once from ``data[start:end]``; the number of bytes that the kernel took, or -errno."""
    try:
        with memoryview(data) as view, view[start:end] as piece:
            return os.write(fd, piece)
    except OSError as error:
        return -(error.errno or 1)


def find(buffer: bytearray, start: int, end: int, what: bytes) -> int:
    """The place of `what` in ``buffer[start:end]``, or -1."""
    return buffer.find(what, start, end)


def matches(buffer: bytearray, start: int, end: int, what: bytes) -> bool:
    """Whether `what` stands at `start`, whole before `end`."""
    return buffer.startswith(what, start, end)


def repeats(buffer: bytearray, start: int, size: int, what: bytes, offset: int) -> bool:
    """Whether ``what[offset : offset + size]`` stands at `start`."""
    return buffer[start : start + size] == what[offset : offset + size]


def saved(buffer: bytearray, start: int, end: int) -> bytes:
    """A copy of ``buffer[start:end]``."""
    return bytes(buffer[start:end])


def restore(buffer: bytearray, data: bytes) -> None:
    """Put `data` at the beginning of the buffer."""
    buffer[: len(data)] = data


def new_poller() -> select.epoll:
    """An epoll object; compiled, its descriptor."""
    return select.epoll()


def end_poller(poller: select.epoll) -> None:
    """Close an epoll object."""
    poller.close()


def watch(poller: select.epoll, fd: int, mask: int, known: bool) -> None:
    """Watch a descriptor for these events, level-triggered; `known`: it is watched for others already."""
    if known:
        poller.modify(fd, mask)
    else:
        poller.register(fd, mask)


def wait(poller: select.epoll, events: Events, milliseconds: int) -> int:
    """Wait for events; how many there are. They are asked for by their places."""
    events[:] = poller.poll(milliseconds / 1000, 512)
    return len(events)


def nap(poller: select.epoll, nanoseconds: int) -> None:
    """Wait until there are events, or for so long: finer than the milliseconds of epoll_wait(2)."""
    select.select([poller], [], [], nanoseconds / 1e9)


def event_fd(events: Events, place: int) -> int:
    """The descriptor of an event."""
    return events[place][0]


def event_mask(events: Events, place: int) -> int:
    """What has happened to it."""
    return events[place][1]


def check_signals() -> None:
    """Run what signals have asked for: compiled code must ask, the interpreter does it by itself."""


def sharpen(slack: int) -> int:
    """Set this thread's timer slack in nanoseconds (prctl(2)); what it was. Interpreted it stays as it is: 0."""
    return slack * 0
