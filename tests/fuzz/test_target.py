"""What the fuzzer checks holds of its seeds, and of some of their mutations; the fuzzer itself needs atheris."""

from __future__ import annotations

import random

from tests.fuzz.target import check, seeds


def test_the_seeds() -> None:
    for seed in seeds():
        for first in range(4):
            check(bytes((first,)) + seed[1:])


def test_mutations_of_the_seeds() -> None:
    chance = random.Random(9112)
    material = [seed for seed in seeds() if len(seed) < 500]
    for _ in range(3000):
        data = bytearray(chance.choice(material))
        other = chance.choice(material)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(data) + 1)
            data[place : place + chance.randint(0, 3)] = chance.choice(
                [bytes((chance.randrange(256),)), b"\r\n", b"\n", b" ", other[chance.randrange(len(other)) :][:20]]
            )
        check(bytes(data))
