"""A histogram of times with three significant digits, from nanoseconds to an hour, in a fixed number of buckets.

The buckets are those of HDR histograms: as wide as one up to 2048, and from there 1024 between a power of two and the
next. So a value is known to within a thousandth of itself, every histogram has the same buckets, and adding two of
them loses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

try:
    import cython
except ImportError:
    from stoker import nocython as cython

if not cython.compiled:
    from stoker.load.calls import bits

EXACT = 2048  # values below it have a bucket each
HALF = 1024  # buckets between a power of two and the next
DIGITS = 11  # binary digits that are kept
SLOTS = 33 * 1024  # enough for LARGEST
LARGEST = (1 << 42) - 1  # 73 minutes in nanoseconds; what is above it counts as this


class Histogram:
    """How many values lie in each bucket, and their exact number, sum and largest."""

    def __init__(self) -> None:
        if not cython.compiled:
            self.counts = [0] * SLOTS  # compiled, an array of C that is zero from the beginning
        self.count = 0
        self.total = 0.0
        self.highest = 0

    def record(self, value: int) -> None:
        """Count a value, in nanoseconds. A negative one counts as 0."""
        if value < EXACT:
            value = max(value, 0)
            self.counts[value] += 1
        else:
            value = min(value, LARGEST)
            shift = bits(value) - DIGITS
            self.counts[shift * HALF + (value >> shift)] += 1
        self.count += 1
        self.total += value
        self.highest = max(self.highest, value)

    def clear(self) -> None:
        """Forget everything."""
        for place in range(SLOTS):
            self.counts[place] = 0
        self.count = 0
        self.total = 0.0
        self.highest = 0

    def add(self, other: Histogram) -> None:
        """Add what another histogram has counted: the same as if all its values had been recorded here."""
        for place in range(SLOTS):
            self.counts[place] += other.counts[place]
        self.count += other.count
        self.total += other.total
        self.highest = max(self.highest, other.highest)

    def quantile(self, share: float) -> int:
        """The value, in nanoseconds, that `share` (0 to 1) of all values do not exceed; 0 when there are none.

        It is the highest value of the bucket that the sought one lies in, but never above the largest recorded.
        """
        wanted = max(1, math.ceil(share * self.count - 1e-9))
        passed = 0
        for highest, count in self.buckets():
            passed += count
            if passed >= wanted:
                return min(highest, self.highest)
        return self.highest

    def mean(self) -> float:
        """The mean, in nanoseconds; 0 when there are no values."""
        return self.total / self.count if self.count else 0.0

    def tally(self, place: int) -> int:
        """The number of values in the bucket at this place."""
        if not 0 <= place < SLOTS:
            raise IndexError(f"there is no bucket {place}: there are {SLOTS}")
        return self.counts[place]

    def buckets(self) -> Iterator[tuple[int, int]]:
        """The buckets that hold something, upwards: the highest nanoseconds that belong to each, and how many."""
        return ((upper(place), self.tally(place)) for place in range(SLOTS) if self.tally(place))


def upper(place: int) -> int:
    """The highest value that belongs to the bucket at this place."""
    if place < EXACT:
        return place
    shift = place // HALF - 1
    return ((place - shift * HALF + 1) << shift) - 1
