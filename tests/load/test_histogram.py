"""The histogram: three digits, exact counts, exact merging."""

from __future__ import annotations

import math
import random

import pytest

from stoker.load import Histogram


def values(count: int) -> list[int]:
    chance = random.Random(5)
    return [int(chance.lognormvariate(12, 3)) for _ in range(count)]


def filled(numbers: list[int]) -> Histogram:
    made = Histogram()
    for number in numbers:
        made.record(number)
    return made


def test_quantiles_are_right_to_a_thousandth() -> None:
    numbers = sorted(values(20_000))
    made = filled(numbers)
    for share in (0.0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0):
        exact = numbers[max(0, math.ceil(share * len(numbers)) - 1)]
        assert exact <= made.quantile(share) <= exact * 1.001
    assert made.count == len(numbers)
    assert made.highest == numbers[-1] == made.quantile(1)
    assert made.mean() == pytest.approx(sum(numbers) / len(numbers))


def test_merging_is_as_if_all_had_been_recorded_in_one() -> None:
    numbers = values(5_000)
    one, other = filled(numbers[:2_000]), filled(numbers[2_000:])
    one.add(other)
    together = filled(numbers)
    assert list(one.buckets()) == list(together.buckets())
    assert (one.count, one.highest) == (together.count, together.highest)
    assert one.mean() == pytest.approx(together.mean())


@pytest.mark.parametrize("number", [0, 1, 2047, 2048, 2049, 4095, 4096, 10**9, (1 << 42) - 1])
def test_a_bucket_holds_its_value(number: int) -> None:
    ((highest, count),) = filled([number]).buckets()
    assert count == 1
    assert number <= highest <= number * 1.001


def test_what_is_outside_counts_at_the_edge() -> None:
    made = filled([-5, 1 << 50])
    assert list(made.buckets()) == [(0, 1), ((1 << 42) - 1, 1)]
    with pytest.raises(IndexError):
        made.tally(1 << 20)


def test_empty_and_cleared() -> None:
    made = filled([5])
    made.clear()
    for empty in (made, Histogram()):
        assert (empty.count, empty.quantile(0.5), empty.mean(), list(empty.buckets())) == (0, 0, 0.0, [])
