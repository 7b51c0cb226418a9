"""What a run has measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from stoker.load.histogram import Histogram

BOUND: Final = 0.9  # share of a core above which the client, and not the server, may have been the limit


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency in seconds, to three significant digits; all 0 when nothing was measured.

    In closed loop it runs from the moment a request was sent, at constant rate from the moment it was due. A request
    that timed out, and one that was due but could not be sent before the end, count with the time they had waited.
    """

    p50: float
    p90: float
    p99: float
    p999: float
    max: float
    mean: float

    @classmethod
    def of(cls, histogram: Histogram) -> Latency:
        """The latencies of a histogram of nanoseconds."""
        p50, p90, p99, p999 = (histogram.quantile(share) / 1e9 for share in (0.5, 0.9, 0.99, 0.999))
        return cls(p50, p90, p99, p999, histogram.highest / 1e9, histogram.mean() / 1e9)

    def document(self) -> dict[str, float]:
        """The same for JSON."""
        return {
            "p50": self.p50,
            "p90": self.p90,
            "p99": self.p99,
            "p99.9": self.p999,
            "max": self.max,
            "mean": self.mean,
        }


@dataclass(frozen=True, slots=True)
class Result:
    """What a run has measured.

    :param url: that of the plan
    :param mode: "closed" or "rate"
    :param connections: those that carried requests, at a time
    :param opened: how many connections were made for them
    :param seconds: that were measured, to the last answer
    :param requests: answers that were read whole, those with the wrong status or length among them
    :param bytes: received, with heads
    :param warm_up: answers before what was measured
    :param late: at constant rate, requests sent more than a millisecond after they were due
    :param unsent: at constant rate, requests that were due and found no free connection before the end
    :param errors: by kind: connect, reset, timeout, framing (these in requests lost, the warm-up's too), status, body
        (these in answers that were read)
    :param details: the first error of each kind, in words
    :param latency: see there
    :param idle: connections that were held idle
    :param idle_closed: how many of those the server closed during the run
    :param build: "compiled" or "interpreted"
    :param cpu_seconds: CPU time that the client used, user and system
    :param interrupted: the run was ended before its time
    :param histogram: of latencies, in nanoseconds
    """

    url: str
    mode: str
    connections: int
    opened: int
    seconds: float
    requests: int
    bytes: int
    warm_up: int
    late: int
    unsent: int
    errors: dict[str, int]
    details: dict[str, str]
    latency: Latency
    idle: int
    idle_closed: int
    build: str
    cpu_seconds: float
    interrupted: bool
    histogram: Histogram

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def busy(self) -> float:
        """The share of one core that the client used."""
        return self.cpu_seconds / self.seconds if self.seconds else 0.0

    @property
    def client_bound(self) -> bool:
        """Whether the client may have been the limit, so that the server could do more than was measured."""
        return self.busy > BOUND

    @property
    def failed(self) -> bool:
        """Whether anything went wrong, or nothing was answered at all."""
        return not self.requests or any(self.errors.values()) or self.idle_closed > 0

    def document(self, histogram: bool = False) -> dict[str, Any]:
        """All of it for JSON; `histogram` adds [highest seconds of the bucket, count] for each that holds something."""
        found: dict[str, Any] = {
            "url": self.url,
            "mode": self.mode,
            "connections": self.connections,
            "opened": self.opened,
            "seconds": self.seconds,
            "requests": self.requests,
            "rate": self.rate,
            "bytes": self.bytes,
            "warm_up": self.warm_up,
            "errors": self.errors,
            "details": self.details,
            "latency": self.latency.document(),
            "late": self.late,
            "unsent": self.unsent,
            "idle": {"opened": self.idle, "closed": self.idle_closed},
            "client": {"build": self.build, "cpu_seconds": self.cpu_seconds, "busy": self.busy},
            "client_bound": self.client_bound,
            "interrupted": self.interrupted,
        }
        if histogram:
            found["histogram"] = [[highest / 1e9, count] for highest, count in self.histogram.buckets()]
        return found
