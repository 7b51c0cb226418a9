"""Threads that run jobs which may block, for engines that may not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from stoker import log
from stoker.connection import Job

Done = Callable[[], None]


class Pool:
    """``--threads N``: N threads that share one queue. A job that is ``dedicated`` gets a thread of its own.

    :param size: number of threads; 0 for a pool that only starts dedicated ones
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._queue: SimpleQueue[tuple[Job, Done] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, daemon=True, name=f"stoker-pool-{number}") for number in range(size)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job, done: Done) -> None:
        """Run ``job`` soon; ``done`` is called afterwards by the thread that ran it. Raises RuntimeError: no thread."""
        if job.dedicated:
            threading.Thread(target=_run, args=(job, done), daemon=True, name="stoker-connection").start()
        else:
            self._queue.put((job, done))

    def waiting(self) -> int:
        """How many jobs wait for a thread."""
        return self._queue.qsize()

    def close(self) -> None:
        """Let the threads end with what they have in hand; waits for none of them."""
        for _ in self._threads:
            self._queue.put(None)

    def _work(self) -> None:
        while True:
            item = self._queue.get()
            if item is None:
                return
            _run(*item)
            del item  # or the last job, and all that hangs from it, lives until the next one comes


def _run(job: Job, done: Done) -> None:
    try:
        job.run()
    except BaseException:  # a job must not raise; if one does, its connection must not be lost with it
        log.exception("a job failed")
    finally:
        done()
