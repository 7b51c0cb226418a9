"""The workers: there should be so many, of this configuration, and this makes it so.

There are slots, as many as there should be workers; in each is a worker, and sometimes a successor that takes over as
soon as it says that it is ready. Nothing that works is given up for something that may not: every replacement, for a
reload as for a worker that asks for it, starts the new one first. A slot keeps its listeners (`--reuse-port`), so
that a successor inherits who is queued there.
"""

import atexit
import contextlib
import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable

from stoker import log
from stoker.config import Config, envfile
from stoker.errors import BootError
from stoker.net.listeners import Listener, open_slot
from stoker.net.unpatched import Socket, fork, socketpair
from stoker.stats import Board, Row
from stoker.supervisor.loop import Loop
from stoker.supervisor.privileges import Identity
from stoker.supervisor.process import NEVER, Slot, Worker, how
from stoker.supervisor.reexec import Adopted
from stoker.supervisor.report import Totals
from stoker.supervisor.signals import Signals

RunWorker = Callable[[Config, list[Listener], Row, Socket], int]

FATAL = (2, 3)  # exit statuses of a worker that it would make no sense to start again: options, application
MARGIN = 0.5  # seconds that a worker may take longer than its own graceful timeout
HASTE = 2.0  # seconds that a worker has to stop without draining
PATIENCE = 5.0  # seconds that a worker has to end by SIGTERM while it is importing: more than enough
LAST_WORDS = 1.0  # seconds that a stuck worker has to show its stacks
LEAST_TIMEOUT = 2.0  # a worker's loop turns once a second when nothing happens, so less would prove nothing
STOPPED = 5.0  # when the master itself slept for so long (SIGSTOP, a suspended machine), so did the workers
ROWS = 1 << 14  # of the board; what nobody uses takes no memory


@dataclasses.dataclass
class Rollout:
    """A reload under way: these slots are still to get a worker of this generation.

    :ivar farewell: what an old worker is told when a new one is ready: SIGHUP retires it, SIGTERM drains it
    """

    config: Config
    generation: int
    farewell: int
    slots: list[Slot]


class Crew:
    """All workers of a master.

    :param leave: called in each child first: it closes what is the master's alone
    :ivar status: set when the start has failed for good: the exit status of the worker that could not start
    """

    def __init__(
        self,
        config: Config,
        run_worker: RunWorker,
        *,
        loop: Loop,
        signals: Signals,
        identity: Identity | None,
        leave: Callable[[], None],
    ) -> None:
        self.config = config
        self.workers: dict[int, Worker] = {}
        self.slots: list[Slot] = []
        self.totals = Totals()
        self.status: int | None = None
        self._run_worker = run_worker
        self._loop = loop
        self._signals = signals
        self.identity = identity
        self._leave = leave
        self._board = Board(ROWS)
        self._generation = 1
        self._newest = 1
        self._wanted = config.workers
        self._rollout: Rollout | None = None
        self._started = False
        self._stopping = False
        self._turned = time.monotonic()

    # What should be.

    def open(self, sets: list[list[Listener]]) -> None:
        """Make the slots. `sets` holds a set of listeners for each, or one that all share."""
        for index in range(self._wanted):
            self.slots.append(Slot(index, sets[min(index, len(sets) - 1)]))

    def inherit(self, wanted: int, configured: int) -> None:
        """Take over what TTIN and TTOU made of --workers, unless the configuration says something new."""
        if configured == self.config.workers:
            self._wanted = wanted

    def hand_over(self) -> list[Adopted]:
        """What a program that takes our place must know. Who is not ready is ended: it has nothing to lose."""
        self._call_off()
        for worker in self.workers.values():
            if not worker.ready and not worker.leaving:
                self._discard(worker)
        return [
            Adopted(
                worker.pid,
                worker.number,
                worker.slot,
                worker.born,
                worker.control.fileno(),
                worker.kill_at if worker.leaving else 0.0,
            )
            for worker in self.workers.values()
        ]

    def adopt(self, one: Adopted) -> None:
        """Take over a worker of the program before us: it serves in its slot until it is replaced."""
        sock = Socket(fileno=one.control)
        sock.set_inheritable(False)
        sock.setblocking(False)
        worker = Worker(one.pid, self._board.row(one.number - 1), one.slot, 0, sock)
        worker.ready, worker.born = True, one.born
        self._enter(worker)
        if one.kill_at:
            worker.leaving, worker.kill_at = True, one.kill_at
            return
        while one.slot >= len(self.slots):
            self.slots.append(Slot(len(self.slots), self._listeners(len(self.slots))))
        self.slots[one.slot].worker = worker
        worker.listeners = self.slots[one.slot].listeners
        self._started = True

    def reload(self, config: Config, farewell: int) -> None:
        """Replace every worker by one of this configuration, one after another; a reload under way is given up."""
        self._call_off()
        self._newest += 1
        self._rollout = Rollout(config, self._newest, farewell, list(self.slots))

    def replace_adopted(self) -> None:
        """Replace, one after another, the workers of the program before us."""
        self._rollout = Rollout(self.config, self._generation, signal.SIGHUP, list(self.slots))

    def more(self) -> bool:
        """One worker more. Returns False when there is no room for it, which is logged."""
        if self._wanted >= ROWS // 4:
            log.warning(f"there are {self._wanted} workers already: no more than that")
            return False
        self._wanted += 1
        return True

    def less(self) -> bool:
        """One worker less. Returns False when there is only one, which is logged."""
        if self._wanted <= 1:
            log.warning("there is only one worker: it stays (TERM stops the server)")
            return False
        self._wanted -= 1
        return True

    @property
    def wanted(self) -> int:
        """How many workers there should be."""
        return self._wanted

    def stop(self, number: int) -> None:
        """Have every worker end: SIGTERM drains them, SIGINT does not, SIGKILL ends them at once."""
        self._stopping = True
        self._rollout = None
        needed = {worker for worker in self.workers.values() if number == signal.SIGTERM and self._needed(worker)}
        for worker in self.workers.values():
            if number == signal.SIGKILL:
                worker.kill()
            elif worker.ready or worker in needed:
                self._dismiss(worker, number)
            else:
                self._discard(worker)

    # What is.

    def turn(self, now: float) -> None:
        """Make what is a little more like what should be."""
        self._watch(now)
        if self._stopping:
            return
        if self._rollout is not None:
            self._roll(self._rollout, now)
        if self._rollout is None:
            self._adjust()
        for slot in self.slots:
            worker = slot.worker
            if slot.successor is not None or now < slot.due:
                continue
            if worker is None:
                slot.worker = self._fork(slot, self.config, self._generation)
            elif worker.tired and (self._rollout is None or slot not in self._rollout.slots):
                slot.successor = self._fork(slot, self.config, self._generation)

    def next_time(self, now: float) -> float:
        """When the next turn is due at the latest, if nothing happens before."""
        times = [worker.kill_at for worker in self.workers.values()]
        if not self._stopping:
            times += [slot.due for slot in self.slots if slot.due > now]
        return min(times, default=NEVER)

    def reap(self, pid: int, status: int) -> bool:
        """A child has ended (`status` as of waitpid(2)). Returns False if it was no worker."""
        worker = self.workers.pop(pid, None)
        if worker is None:
            return False
        last_words = worker.hear()
        worker.ready, worker.tired = worker.ready or b"R" in last_words, worker.tired or b"Q" in last_words
        self._loop.remove(worker.control.fileno())
        worker.control.close()
        self.totals.add(worker.row)
        worker.row.clear()
        slot = next((one for one in self.slots if worker in (one.worker, one.successor)), None)
        if worker.leaving and not worker.ready:
            log.info(f"{worker} is given up before it was ready")
        elif worker.leaving or self._stopping:
            log.info(f"{worker} {how(status)}" if worker.killed or status else f"{worker} has ended")
        if slot is None or self._stopping:
            return True
        if slot.successor is worker:
            slot.successor = None
        else:
            slot.worker = None
        if not worker.leaving:
            self._lost(worker, slot, status)
        return True

    # Forking.

    def _fork(self, slot: Slot, config: Config, generation: int) -> Worker | None:
        """A new worker for this slot; None if that does not work now: then `slot.due` says when to try again."""
        pair: list[Socket] = []
        try:
            row = self._free_row()
            pair += socketpair()
            ours, theirs = pair
            ours.setblocking(False)
            with self._signals.held():
                pid = fork()
                if pid == 0:
                    ours.close()
                    self._child(slot, config, row, theirs)
        except OSError as error:  # EAGAIN, ENOMEM, EMFILE: it may get better
            for end in pair:
                end.close()
            delay = max(slot.pace.delay(0.0, good=False), 1.0)
            slot.due = time.monotonic() + delay
            log.error(f"a worker cannot be started: {error.strerror}; next try in {delay:.0f} s")
            return None
        theirs.close()
        worker = Worker(pid, row, slot.index, generation, ours)
        worker.listeners = slot.listeners
        self._enter(worker)
        return worker

    def _free_row(self) -> Row:
        used = {worker.row.index for worker in self.workers.values()}
        return self._board.row(next(index for index in range(ROWS) if index not in used))

    def _enter(self, worker: Worker) -> None:
        self.workers[worker.pid] = worker
        self._loop.add(worker.control.fileno(), lambda: self._hear(worker))

    def _child(self, slot: Slot, config: Config, row: Row, control: Socket) -> None:
        """The child's life, from fork to exit: it never returns."""
        status = 1
        try:
            row.pid = os.getpid()
            self._signals.reset()
            self._leave()
            for worker in self.workers.values():  # their sockets must be closed when the master is dead
                worker.control.close()
            for other in self.slots:
                for listener in other.listeners:
                    if listener not in slot.listeners:
                        listener.close()
            if self.identity is not None:
                self.identity.become()
            if config.env_file is not None:
                envfile.load(config.env_file)
            status = self._run_worker(config, slot.listeners, row, control)
        except BaseException:
            log.exception("the worker failed")
        finally:
            _exit(status)

    # Hearing from them.

    def _hear(self, worker: Worker) -> None:
        for letter in worker.hear():
            if letter == ord("R") and not worker.ready:
                worker.ready = True
                self._is_ready(worker)
            elif letter == ord("Q"):
                worker.tired = True
        if worker.deaf:
            self._loop.remove(worker.control.fileno())

    def _is_ready(self, worker: Worker) -> None:
        if worker.leaving:
            if worker.farewell:
                worker.tell(worker.farewell)
            return
        log.info(f"{worker} is ready")
        for slot in self.slots:
            if slot.successor is worker:
                old, slot.worker, slot.successor = slot.worker, worker, None
                farewell: int = signal.SIGHUP
                if self._rollout is not None and worker.generation == self._rollout.generation:
                    farewell = self._rollout.farewell
                    self._accept(self._rollout)
                if old is not None:
                    self._part(old, farewell)
        if not self._started and all(slot.worker is not None and slot.worker.ready for slot in self.slots):
            self._started = True

    def _lost(self, worker: Worker, slot: Slot, status: int) -> None:
        """A worker has ended that nobody told to."""
        code = os.waitstatus_to_exitcode(status)
        rollout = self._rollout
        if rollout is not None and not worker.ready and worker.generation == rollout.generation:
            self._rollout = None
            log.error(
                f"reload given up: {worker} {how(status)} before it was ready; the workers of before go on serving"
            )
        elif not worker.ready and not self._started and code in FATAL:
            log.error(f"{worker} {how(status)}: the server cannot start")
            self.status = code
        elif code == 0 and worker.tired:
            return
        else:
            delay = slot.pace.delay(time.monotonic() - worker.born, worker.ready)
            slot.due = time.monotonic() + delay
            hint = " (does the machine lack memory? the kernel's log says so)" if code == -signal.SIGKILL else ""
            when = f"in {delay:.1f} s" if delay else "now"
            say = log.error if code else log.warning
            say(f"{worker} {how(status)}{hint}; another is started {when}")

    # Replacing.

    def _roll(self, rollout: Rollout, now: float) -> None:
        """Go on with a reload: one slot at a time."""
        while rollout.slots:
            slot = rollout.slots[0]
            current = slot.worker is not None and slot.worker.generation == rollout.generation
            if slot not in self.slots or current:
                rollout.slots.pop(0)
                continue
            if slot.successor is None and now >= slot.due:
                slot.successor = self._fork(slot, rollout.config, rollout.generation)
            return
        self._rollout = None
        log.info("reload: every worker is new")

    def _accept(self, rollout: Rollout) -> None:
        """The first worker of a new configuration is ready: so it is good, and everybody's from now on."""
        if rollout.generation != self._generation:
            if rollout.config.workers != self.config.workers:
                self._wanted = rollout.config.workers
            self.config, self._generation = rollout.config, rollout.generation

    def _call_off(self) -> None:
        """Give up a reload, and every successor that is not ready."""
        self._rollout = None
        for slot in self.slots:
            if slot.successor is not None:
                self._discard(slot.successor)
                slot.successor = None

    def _adjust(self) -> None:
        """Make the number of slots what it should be."""
        while len(self.slots) < self._wanted:
            index = len(self.slots)
            try:
                self.slots.append(Slot(index, self._listeners(index)))
            except BootError as error:
                log.error(f"there will be no worker more: {error}")
                self._wanted = index
        while len(self.slots) > self._wanted:
            slot = self.slots.pop()
            own = [listener for listener in slot.listeners if listener.slot is not None]
            for listener in own:
                listener.refuse_new()
            for worker in (slot.worker, slot.successor):
                if worker is not None:
                    self._part(worker, signal.SIGHUP)
            for listener in own:
                listener.close()

    def _listeners(self, index: int) -> list[Listener]:
        first = self.slots[0].listeners
        return open_slot(self.config, first, index) if any(one.slot is not None for one in first) else first

    # Letting go.

    def _part(self, worker: Worker, number: int) -> None:
        """Part with a worker whose work is done."""
        if worker.ready or self._needed(worker):
            self._dismiss(worker, number)
        else:
            self._discard(worker)

    def _needed(self, worker: Worker) -> bool:
        """Whether somebody is queued whom only this worker could serve, when it is ready."""
        return any(
            listener.queued()
            and not any(one.ready and not one.leaving and listener in one.listeners for one in self.workers.values())
            for listener in worker.listeners
        )

    def _dismiss(self, worker: Worker, number: int) -> None:
        """Have it end in its own way; one that is not ready when it is."""
        worker.leaving = True
        patience = HASTE if number == signal.SIGINT else self.config.graceful_timeout + MARGIN
        worker.kill_at = min(worker.kill_at, time.monotonic() + patience)
        worker.farewell = number
        if worker.ready:
            worker.tell(number)

    def _discard(self, worker: Worker) -> None:
        """End a worker that serves nobody yet: it is importing, and cannot hear what it is told."""
        worker.leaving = True
        worker.kill_at = min(worker.kill_at, time.monotonic() + PATIENCE)
        worker.send(signal.SIGTERM)

    def _watch(self, now: float) -> None:
        """Kill who is out of time, and who is stuck."""
        asleep, self._turned = now - self._turned > STOPPED, now
        timeout = max(self.config.worker_timeout, LEAST_TIMEOUT) if self.config.worker_timeout else NEVER
        for worker in list(self.workers.values()):
            if now >= worker.kill_at:
                if worker.farewell != signal.SIGABRT:
                    log.warning(f"{worker} has not ended in time: it is killed")
                worker.kill()
            if worker.leaving:
                continue
            turn = worker.row.turn
            if turn != worker.seen or turn == 0 or worker.row.busy > 0 or asleep:
                worker.seen, worker.since = turn, now
            elif now - worker.since > timeout:
                self._stuck(worker, now - worker.since)

    def _stuck(self, worker: Worker, seconds: float) -> None:
        """Replace a worker whose loop does not turn; SIGABRT makes it show where it is, if it can (faulthandler)."""
        log.error(
            f"{worker} is stuck: its loop has not turned for {seconds:.0f} s while no application code ran "
            f"(--worker-timeout); it is killed and replaced"
        )
        worker.leaving = True
        worker.farewell = signal.SIGABRT
        worker.kill_at = time.monotonic() + LAST_WORDS
        worker.send(signal.SIGABRT)
        for slot in self.slots:
            if slot.worker is worker:
                slot.worker = None


def _exit(status: int) -> None:
    """End a child as the interpreter would, but for waiting for threads, which may be what is stuck."""
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    os._exit(status)
