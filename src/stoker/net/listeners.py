"""What the server listens on: TCP over IPv4 and IPv6, unix sockets, and sockets that another program opened.

A listener can stop taking new connections without losing one that waits in its accept queue. close(2) and shutdown(2)
cannot do that on a listening TCP socket: both reset what is queued. So the socket gets a classic BPF filter (socket(7),
SO_ATTACH_FILTER) that drops each SYN and nothing else. A handshake that has begun still ends, since its last ACK
passes; what is queued is accepted and answered; a new client's SYN is lost as on a bad line, and is sent again a second
later, when either a successor listens on the port or nobody does and the kernel refuses it. A unix socket is simpler:
after shutdown(SHUT_RD) connect(2) fails with ECONNREFUSED, and accept(2) goes on until the queue is empty. From then on
poll(2) reports the socket as readable for ever, while accept(2) says EAGAIN (EINVAL if it may block), so it has to be
closed soon.
"""

import array
import contextlib
import errno
import os
import socket
import stat
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stoker import log
from stoker.config import Config
from stoker.errors import BootError
from stoker.net import inherited
from stoker.net.descriptors import above_standard
from stoker.net.unpatched import POLLIN, Socket, poll

_SO_ATTACH_FILTER = 26  # <asm-generic/socket.h>; the socket module has no name for it
# struct sock_filter { u16 code; u8 jt; u8 jf; u32 k }: a TCP socket's filter sees the packet from its TCP header on.
_DROP_SYN = struct.pack(
    "HBBIHBBIHBBIHBBIHBBI",
    *(0x30, 0, 0, 13),  # ldb [13]: the byte of the flags
    *(0x54, 0, 0, 0x12),  # and #SYN|ACK
    *(0x15, 0, 1, 0x02),  # jeq #SYN: a SYN that is not a SYN-ACK
    *(0x06, 0, 0, 0),  # ret 0: drop
    *(0x06, 0, 0, 0x7FFFFFFF),  # ret: keep it whole
)
_DEFAULT_BIND = ("127.0.0.1:8000",)
MANAGED = "LISTEN_FDS"  # the `bind` of a listener that the service manager opened
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_PATH_MOST = 107  # struct sockaddr_un: 108 bytes with the NUL


class ListenError(BootError):
    """A socket cannot listen; the message says on which address, why, and what to do."""


class Listener:
    """One listening socket.

    :ivar sock: non-blocking, closed on exec, its descriptor at least 3
    :ivar family: socket.AF_INET, AF_INET6 or AF_UNIX
    :ivar address: for people: ``http://127.0.0.1:8000``, ``tcp://[::1]:9000``, ``unix:/run/app.sock``, ``unix:@name``
    :ivar server: host and port for SERVER_NAME and SERVER_PORT
    :ivar bind: the option it came from, MANAGED for a socket of the service manager
    :ivar slot: the worker slot that it belongs to (``--reuse-port``), or None: all workers share it
    :ivar inode: device and inode of the path that we made for a unix socket, else None
    """

    __slots__ = ("address", "bind", "family", "inode", "path", "server", "slot", "sock")

    def __init__(self, sock: Socket, bind: str, scheme: str, slot: int | None, inode: tuple[int, int] | None) -> None:
        self.sock = sock
        self.bind = bind
        self.slot = slot
        self.inode = inode
        self.family = sock.family
        self.path = b""
        name = sock.getsockname()
        if self.family == socket.AF_UNIX:
            self.path = os.fsencode(name)
            self.address = "unix:" + os.fsdecode(self.path).replace("\0", "@")
            self.server = ("localhost", 80)
        else:
            host, port = name[:2]
            self.address = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
            self.server = (socket.gethostname() if host in ("0.0.0.0", "::") else host, port)

    def fileno(self) -> int:
        """The descriptor, -1 when closed."""
        return self.sock.fileno()

    def queued(self) -> bool:
        """Whether somebody waits to be accepted."""
        poller = poll()
        poller.register(self.sock, POLLIN)
        return bool(poller.poll(0))

    def refuse_new(self) -> bool:
        """From now on nobody can connect; who is queued can still be accepted. May be called again.

        It holds for every process that shares the socket. The path of a unix socket is removed as well, so that a
        successor can bind it. Returns False where the kernel offers no way (a sandbox without SO_ATTACH_FILTER): then
        new ones still come.
        """
        if self.sock.fileno() < 0:
            return True
        try:
            if self.family == socket.AF_UNIX:
                self.remove()
                self.sock.shutdown(socket.SHUT_RD)
            else:
                program = array.array("B", _DROP_SYN)
                address, length = program.buffer_info()
                fprog = struct.pack("HP", length // 8, address)
                self.sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
        except OSError:
            return False
        return True

    def own(self, uid: int, gid: int) -> None:
        """Give the path of a unix socket, if we made it, to another user. Raises OSError."""
        if self.inode is not None:
            os.chown(self.path, uid, gid, follow_symlinks=False)

    def remove(self) -> None:
        """Remove the path of a unix socket, if we made it and it is still ours. Nothing else ever removes it."""
        if self.inode is None:
            return
        with contextlib.suppress(OSError):  # gone already, or its directory is no longer ours to change
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino) == self.inode:
                os.unlink(self.path)
        self.inode = None

    def close(self) -> None:
        """Close our copy. The socket lives on while another process has one."""
        self.sock.close()


@dataclass(frozen=True)
class Handed:
    """A listener that is handed to the program that replaces this one (execve(2))."""

    fd: int
    bind: str
    slot: int | None
    inode: tuple[int, int] | None


def hand_over(sets: Iterable[Sequence[Listener]]) -> list[Handed]:
    """What a successor must know of these listeners; their descriptors are made to survive execve(2)."""
    handed = {}
    for listener in (listener for listeners in sets for listener in listeners):
        os.set_inheritable(listener.fileno(), True)
        handed[listener.fileno()] = Handed(listener.fileno(), listener.bind, listener.slot, listener.inode)
    return list(handed.values())


def open_listeners(config: Config, handed: Sequence[Handed] = ()) -> list[list[Listener]]:
    """Open everything that `config.bind` names: one set of listeners for each worker slot, or one that all share.

    With ``--reuse-port`` the kernel spreads connections over one TCP socket per slot. Unix sockets and sockets that
    somebody else opened cannot be had twice: they are the same object in every set.

    :param handed: what a predecessor left us; an address that it listened on is taken over with its queue
    :raises ListenError: an address that cannot be listened on; then nothing stays open
    """
    given = [_adopt(one.fd, one.bind, config, one.slot, one.inode) for one in handed]
    opened: list[Listener] = []
    try:
        first = [_adopt(fd, MANAGED, config) for fd in inherited.systemd(os.environ)]
        first += [listener for listener in given if listener.bind == MANAGED]
        # Port 0 may be named twice, and what is handed over has the listeners of both under the one name.
        binds = dict.fromkeys(config.bind) if handed else config.bind
        for bind in binds if not first or config.bind != _DEFAULT_BIND else ():
            found = [listener for listener in given if listener.bind == bind and not listener.slot]
            if not found and not any(_same(listener, bind) for listener in first):
                found = _open(bind, config, first)
                opened += found
            first += found
        sets = [first]
        for slot in range(1, config.workers if config.reuse_port else 1):
            sets.append(open_slot(config, first, slot, given))
            opened += [listener for listener in sets[-1] if listener not in given]
    except ListenError:
        for listener in opened:
            listener.remove()
            listener.close()
        raise
    for listener in given:
        if not any(
            listener in listeners for listeners in sets
        ):  # no longer wanted: the predecessor's workers empty its queue
            listener.refuse_new()
            listener.close()
    _check_backlog(config.backlog)
    return sets


def open_slot(config: Config, first: Sequence[Listener], slot: int, given: Sequence[Listener] = ()) -> list[Listener]:
    """The set of one more slot, on the addresses of the first set, taken from `given` if there. Raises ListenError."""
    listeners: list[Listener] = []
    for like in first:
        name = like.sock.getsockname()
        found = [one for one in given if one.slot == slot and one.sock.getsockname() == name]
        if like.slot is None:
            listeners.append(like)
        elif found:
            listeners += found
        else:
            try:
                sock = _bound(like.family, name, like.bind, config, listeners)
                listeners.append(_listening(sock, like.bind, config, slot, None))
            except ListenError:
                for listener in listeners:
                    if listener.slot is not None and listener not in given:
                        listener.close()
                raise
    return listeners


def _open(bind: str, config: Config, others: Sequence[Listener]) -> list[Listener]:
    if bind.startswith("fd://"):
        return [_adopt(int(bind[len("fd://") :]), bind, config)]
    if bind.startswith("unix:"):
        return [_open_unix(bind, config)]
    host, _, port = bind.rpartition(":")
    return _open_tcp(bind, host.strip("[]"), int(port), config, others)


def _open_tcp(bind: str, host: str, port: int, config: Config, others: Sequence[Listener]) -> list[Listener]:
    """Each address that the name resolves to; no host is every address of the machine, IPv4 and IPv6."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise ListenError(f"cannot listen on {bind}: the name {host!r} does not resolve ({error})") from None
    targets = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    targets.sort(key=lambda target: target[0] != socket.AF_INET)  # so that of port 0 IPv4 chooses for both
    slot = 0 if config.reuse_port else None
    listeners: list[Listener] = []
    missing: ListenError | None = None
    for family, address in targets:
        if port == 0 and listeners:
            address = (address[0], listeners[0].server[1], *address[2:])  # noqa: PLW2901
        try:
            sock = _bound(family, address, bind, config, [*others, *listeners])
        except ListenError as error:
            # A name may have an address that this machine lacks (::1 in a container without IPv6), but not all may be
            # so.
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in _NOT_HERE and len(targets) > 1:
                missing = error
                continue
            for listener in listeners:
                listener.close()
            raise
        listeners.append(_listening(sock, bind, config, slot, None))
    if missing and not listeners:
        raise missing
    return listeners


def _bound(family: int, address: tuple[Any, ...], bind: str, config: Config, others: Sequence[Listener]) -> Socket:
    sock = None
    try:
        sock = Socket(family, socket.SOCK_STREAM)
        # Without it the port would be refused for 60 s while connections of a server before us are in TIME_WAIT.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if config.reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own
        sock.bind(address)
    except OSError as error:
        if sock is not None:
            sock.close()
        raise ListenError(f"cannot listen on {bind}: {_why(error, family, address, others)}") from error
    return sock


def _why(error: OSError, family: int, address: tuple[Any, ...], others: Sequence[Listener]) -> str:
    host, port = address[:2]
    where = f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        for other in others:
            if other.family == family and other.sock.getsockname()[1] == port:
                return f"{where} overlaps with --bind {other.bind}, which this server has bound already; name it once"
        return (
            f"{where} is in use by another program (`ss -ltnp 'sport = :{port}'` shows which); "
            f"stop it, or choose another port with --bind"
        )
    if error.errno == errno.EACCES:
        return (
            f"no permission to bind {where}: ports below {_first_unprivileged_port()} need root or "
            f"CAP_NET_BIND_SERVICE (start as root with --user, let systemd open the socket, or use a higher port)"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine (`ip address` lists them; 0.0.0.0 and [::] mean all)"
    if error.errno == errno.EAFNOSUPPORT:
        return f"this kernel has no {'IPv6' if family == socket.AF_INET6 else 'IPv4'}, so it cannot bind {where}"
    return f"{where}: {error.strerror}"


def _first_unprivileged_port() -> int:
    return _kernel_number("/proc/sys/net/ipv4/ip_unprivileged_port_start", 1024)


def _open_unix(bind: str, config: Config) -> Listener:
    name = bind[len("unix:") :]
    path = os.fsencode(name)
    address = b"\0" + path[1:] if path.startswith(b"@") else path
    if len(path) > _PATH_MOST:
        raise ListenError(
            f"cannot listen on {bind}: the path has {len(path)} bytes, a unix socket's at most {_PATH_MOST}"
        )
    if address is path:
        _remove_stale(bind, path)
    sock = Socket(socket.AF_UNIX, socket.SOCK_STREAM)
    inode = None
    try:
        if address is not path:
            sock.bind(address)
        else:
            # The kernel makes the file with 777 less the umask; a chmod afterwards would come a moment late.
            before = os.umask(0o777 & ~config.socket_mode)
            try:
                sock.bind(address)
            finally:
                os.umask(before)
            found = os.lstat(path)
            inode = (found.st_dev, found.st_ino)
    except OSError as error:
        sock.close()
        raise ListenError(f"cannot listen on {bind}: {_why_unix(error, name)}") from error
    return _listening(sock, bind, config, None, inode)


def _why_unix(error: OSError, name: str) -> str:
    directory = os.path.dirname(os.path.abspath(name))
    if error.errno == errno.EADDRINUSE:
        return "another program listens there (`ss -lxp` shows which); stop it, or choose another name"
    if error.errno == errno.ENOENT:
        return f"there is no directory {directory}; make it first"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission to create a file in {directory}"
    return str(error.strerror)


def _remove_stale(bind: str, path: bytes) -> None:
    """Remove a socket that a dead server left behind: only a socket, and only when nobody answers on it."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ListenError(f"cannot listen on {bind}: {error.strerror}") from error
    if not stat.S_ISSOCK(found.st_mode):
        raise ListenError(f"cannot listen on {bind}: there is a file of this name that is no socket; it is left alone")
    with Socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a listener with a full queue would block us, and answers with EAGAIN so
        result = probe.connect_ex(path)
    if result == errno.ECONNREFUSED:
        try:
            os.unlink(path)
        except OSError as error:
            raise ListenError(
                f"cannot listen on {bind}: the stale socket cannot be removed: {error.strerror}"
            ) from error
    elif result == errno.EACCES:
        raise ListenError(
            f"cannot listen on {bind}: there is a socket of this name, and no permission to see whose it is"
        )
    elif result != errno.ENOENT:
        raise ListenError(
            f"cannot listen on {bind}: another program listens there (`ss -lxp` shows which); "
            f"stop it, or choose another path"
        )


def _adopt(
    fd: int, bind: str, config: Config, slot: int | None = None, inode: tuple[int, int] | None = None
) -> Listener:
    """A listener of a socket that is open already."""
    try:
        fd = above_standard(fd)
        sock = Socket(fileno=fd)
    except OSError as error:
        why = "is not a socket" if error.errno == errno.ENOTSOCK else "is not open"
        raise ListenError(
            f"cannot listen on {bind}: descriptor {fd} {why} (who starts the server must pass it on)"
        ) from error
    families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
    if sock.type != socket.SOCK_STREAM or sock.family not in families:
        sock.detach()
        raise ListenError(f"cannot listen on {bind}: descriptor {fd} is no stream socket of TCP or unix")
    return _listening(sock, bind, config, slot, inode)


def _listening(sock: Socket, bind: str, config: Config, slot: int | None, inode: tuple[int, int] | None) -> Listener:
    """Make a bound socket listen (once more does no harm), and set what accepted ones inherit."""
    try:
        if sock.family != socket.AF_UNIX:
            # Linux copies it to what accept(2) returns. Without it the end of a response waits for an ACK (Nagle).
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        sock.listen(config.backlog)
        scheme = "http" if config.tcp is None else "tcp"
        return Listener(sock, bind, scheme, slot, inode)
    except OSError as error:
        why = error.strerror if sock.family == socket.AF_UNIX else _why(error, sock.family, sock.getsockname(), ())
        sock.close()
        raise ListenError(f"cannot listen on {bind}: {why}") from error


def _same(listener: Listener, bind: str) -> bool:
    return listener.address == bind or listener.address.partition("://")[2] == bind


def _check_backlog(backlog: int) -> None:
    most = _kernel_number("/proc/sys/net/core/somaxconn", backlog)
    if backlog > most:
        log.warning(
            f"--backlog {backlog} is more than the kernel allows: {most} connections may wait to be accepted "
            f"(raise net.core.somaxconn with sysctl, or lower --backlog)"
        )


def _kernel_number(path: str, default: int) -> int:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return default
