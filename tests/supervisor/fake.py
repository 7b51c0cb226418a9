"""A server whose workers are a few lines: what a real worker owes its master, and nothing else.

    python fake.py NAME=VALUE ...      options of Config as text, and those of Fake below

A request is a line; the answer is the pid of the worker and what its "application" says.
"""

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from stoker import log
from stoker.config import Config
from stoker.errors import BootError, ConfigError
from stoker.net.descriptors import guard
from stoker.net.listeners import Listener
from stoker.stats import DRAINING, READY, Row
from stoker.supervisor.master import Master


@dataclass
class Fake:
    """What the fake worker does; it reads files in the child, so they can change between two workers."""

    application: str = ""  # a file whose text is the answer; "fail" in it: cannot be imported
    options: str = ""  # a file with NAME=VALUE lines that reload_config reads
    boot: float = 0.0  # seconds of importing
    slow: float = 0.0  # seconds an answer takes
    stick: bool = False  # "stick" as a request stops the loop for ever
    record: str = ""  # a file for a line about each import: pid, uid, gid, umask, directory


def answer_of(fake: Fake) -> str:
    text = Path(fake.application).read_text().strip() if fake.application else "hello"
    if fake.record:
        umask = os.umask(0)
        os.umask(umask)
        with open(fake.record, "a") as file:
            print(
                os.getpid(), os.geteuid(), os.getegid(), oct(umask), os.getcwd(), os.environ.get("FROM_FILE"), file=file
            )
    if text == "fail":
        raise BootError("the application cannot be imported: it says fail")
    if text.startswith("exit "):
        os._exit(int(text[5:]))
    if text.startswith("raise"):
        raise RuntimeError("at import")
    return text


imported: list[str] = []


def worker_of(fake: Fake) -> Callable[[Config, list[Listener], Row, socket.socket], int]:
    def run(config: Config, listeners: list[Listener], row: Row, control: socket.socket) -> int:
        try:
            time.sleep(fake.boot)
            answer = imported[0] if imported else answer_of(fake)
        except BootError as error:
            log.error(str(error))
            return 3
        return Loop(config, listeners, row, control, fake, answer).run()

    return run


class Loop:
    def __init__(
        self, config: Config, listeners: list[Listener], row: Row, control: socket.socket, fake: Fake, answer: str
    ) -> None:
        self.config, self.listeners, self.row, self.control, self.fake, self.answer = (
            config,
            listeners,
            row,
            control,
            fake,
            answer,
        )
        self.requests = 0
        self.clients: list[socket.socket] = []
        self.phase = 0
        self.end = float("inf")

    def run(self) -> int:
        reader, writer = os.pipe2(os.O_NONBLOCK)
        signal.set_wakeup_fd(writer)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, lambda *_: None)
        self.control.setblocking(False)
        self.row.state = READY
        self.control.send(b"R")
        while self.phase == 0 or (self.phase != signal.SIGINT and self.clients and time.monotonic() < self.end):
            self.row.turn = time.monotonic()
            ready, _, _ = select.select([reader, self.control, *self.listeners, *self.clients], [], [], 0.2)
            for one in ready:
                if one is reader:
                    self.obey(os.read(reader, 64))
                elif one is self.control:
                    self.obey(self.control.recv(64) or bytes([signal.SIGTERM]))
                elif isinstance(one, Listener):
                    self.accept(one)
                else:
                    self.serve(one)
        return 0

    def obey(self, data: bytes) -> None:
        for number in data:
            if number == signal.SIGUSR1:
                log.reopen()
                log.info("the fake worker has opened its logs again")
            elif self.phase in (0, signal.SIGHUP):
                self.phase = signal.SIGINT if number == signal.SIGQUIT else number
                self.end = time.monotonic() + self.config.graceful_timeout
                self.row.state = DRAINING
                for one in self.listeners:
                    while self.phase != signal.SIGINT and self.accept(one):
                        pass
                    one.close()
                self.listeners = []
                if self.phase == signal.SIGTERM:
                    time.sleep(0.05)
                    for client in list(self.clients):
                        self.serve(client)
                    for client in self.clients:
                        client.close()
                    self.clients = []

    def accept(self, listener: Listener) -> bool:
        try:
            client, _ = listener.sock.accept()
        except OSError:  # nobody is queued, or a signal has closed it in this turn
            return False
        client.setblocking(False)
        self.clients.append(client)
        self.row.accepted += 1
        return True

    def serve(self, client: socket.socket) -> None:
        try:
            data = client.recv(100)
        except BlockingIOError:
            return
        if data == b"stick\n" and self.fake.stick:
            time.sleep(3600)
        if data == b"tire\n":
            self.control.send(b"Q")
        if data:
            time.sleep(self.fake.slow)
            self.row.requests += 1
            client.sendall(f"{os.getpid()} {self.answer} {self.config.threads}\n".encode())
        if not data or self.phase:
            client.close()
            self.clients.remove(client)


def main() -> int:
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    names = {field.name: field for field in fields(Fake)}
    fake = Fake(
        **{
            name: eval(words.pop(name)) if names[name].type not in (str, "str") else words.pop(name)
            for name in names
            if name in words
        }
    )

    def configured() -> Config:
        more = dict(line.split("=", 1) for line in Path(fake.options).read_text().split()) if fake.options else {}
        return Config(app="fake:app", **{**words, **more})

    def preload(config: Config) -> None:
        time.sleep(fake.boot)
        imported[:] = [answer_of(fake)]

    guard()
    config = configured()
    log.setup(config)
    try:
        return Master(config, worker_of(fake), preload, None, configured).run()
    except ConfigError as error:
        log.error(str(error))
        return 2
    except BootError as error:
        log.error(str(error))
        return 3


if __name__ == "__main__":
    sys.exit(main())
