"""The load client: measures a server on this machine, over HTTP/1.1 or a raw TCP echo.

`run(Plan("http://127.0.0.1:8000/"))` gives a `Result`; `connect_idle(url, n)` holds connections open; on the
command line it is ``python -m stoker.load URL``. One thread, compiled where Stoker is compiled. See docs/load.md.
"""

from stoker.load.driver import Unreachable
from stoker.load.head import FramingError
from stoker.load.histogram import Histogram
from stoker.load.idle import Idle, IdleError, connect_idle
from stoker.load.plan import Plan
from stoker.load.result import Latency, Result
from stoker.load.running import run

__all__ = [
    "FramingError", "Histogram", "Idle", "IdleError", "Latency", "Plan", "Result", "Unreachable", "connect_idle", "run",
]  # fmt: skip
