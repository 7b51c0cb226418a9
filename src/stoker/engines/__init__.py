"""The registry of engines: what each is, without importing any of them."""

from __future__ import annotations

import importlib
import importlib.util
import select as readiness_calls  # the import of stoker.engines.select puts that under the name `select` here
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EngineInfo:
    """What is known of an engine before it is imported.

    :ivar target: ``"module:Class"``, imported only when it is chosen
    :ivar waits: how the kernel is asked
    :ivar suspended: what of a connection is kept while it waits
    :ivar blocking_ok: an application may block in place without holding other connections up
    :ivar pooled: ``--threads N`` has an effect
    :ivar spawns: raw handlers may ``spawn`` and ``join``
    :ivar cap: connections per worker by default; None: the descriptor limit less 64
    :ivar requires: the package that must be installed, if any
    :ivar probe: ``"module:function"``, which says why the engine cannot run here, or nothing
    :ivar costs: in words, its limits and what they come from
    """

    name: str
    target: str
    waits: str
    suspended: str
    costs: str
    blocking_ok: bool = False
    pooled: bool = True
    spawns: bool = False
    cap: int | None = None
    requires: str = ""
    probe: str = ""


FD_SETSIZE = 1024

_ENGINES = (
    EngineInfo(
        "process", "stoker.engines.process:ProcessEngine", "blocking recv", "a process",
        "a fork per connection; no memory is shared after it", blocking_ok=True, pooled=False, cap=1024,
    ),
    EngineInfo(
        "thread", "stoker.engines.thread:ThreadEngine", "blocking recv", "a thread",
        "a thread per connection; one runs Python at a time (GIL)", blocking_ok=True, pooled=False, cap=1024,
    ),
    EngineInfo(
        "nonblocking", "stoker.engines.nonblocking:NonblockingEngine", "tries each in turn", "a generator",
        "every turn asks every connection, ready or not",
    ),
    EngineInfo(
        "select", "stoker.engines.select:SelectEngine", "select(2)", "a generator",
        "descriptors below FD_SETSIZE only; every call passes them all", cap=FD_SETSIZE,
    ),
    EngineInfo(
        "poll", "stoker.engines.poll:PollEngine", "poll(2)", "a generator",
        "every call passes all descriptors to the kernel",
    ),
    EngineInfo(
        "epoll", "stoker.engines.epoll:EpollEngine", "epoll(7), level or edge", "a generator",
        "inline, an application that blocks holds its worker up",
    ),
    EngineInfo(
        "generator", "stoker.engines.generator:GeneratorEngine", "epoll(7)", "a task of generators",
        "as epoll, and a switch of the scheduler each", spawns=True,
    ),
    EngineInfo(
        "greenlet", "stoker.engines.greenlet:GreenletEngine", "any poller (--poller)", "a greenlet on our hub",
        "a C stack slice per connection; what blocks holds its worker up", spawns=True, requires="greenlet",
    ),
    EngineInfo(
        "gevent", "stoker.engines.gevent:GeventEngine", "libev, persistent watchers", "a greenlet on gevent's hub",
        "patches the standard library: blocking calls switch", blocking_ok=True, spawns=True, requires="gevent",
    ),
    EngineInfo(
        "asyncio", "stoker.engines.asyncio:AsyncioEngine", "our epoll object nested in the event loop", "a generator",
        "inline, an application that blocks holds its worker up",
    ),
    EngineInfo(
        "uring", "stoker.engines.uring:UringEngine", "io_uring(7), multishot", "a generator",
        "as epoll; Linux 6.1, compiled modules, and no sandbox that forbids it", probe="stoker.net.probe:refusal",
    ),
)  # fmt: skip

REGISTRY: dict[str, EngineInfo] = {info.name: info for info in _ENGINES}


def unavailable(name: str) -> str:
    """Why an engine cannot run here, and what to do; empty if it can."""
    info = REGISTRY[name]
    if info.requires and importlib.util.find_spec(info.requires) is None:
        return f"the package {info.requires!r} is not installed: pip install 'stoker[{info.requires}]'"
    if "epoll" in info.waits and not hasattr(readiness_calls, "epoll"):
        return "this system has no epoll(7)"
    return str(_named(info.probe)()) if info.probe else ""


def load(name: str) -> Any:
    """The class of an engine. Raises ImportError if it cannot run here."""
    return _named(REGISTRY[name].target)


def _named(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
