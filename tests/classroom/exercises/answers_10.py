from __future__ import annotations

import math

from classroom.exercises import lesson_10

from .cases import Case


def by_logarithm(billion: float, cache_gb: float, card_gb: float) -> int:
    needed = (2 * billion + cache_gb) / (0.9 * card_gb)
    return max(1, 2 ** math.ceil(math.log2(needed)))


def next_whole(billion: float, cache_gb: float, card_gb: float) -> int:
    return max(1, math.ceil((2 * billion + cache_gb) / (0.9 * card_gb)))


FEW, MANY = lesson_10.replicas(), lesson_10.replicas(8)

CASES = (
    Case(
        "10.1",
        right=(lambda: (8,), lambda: (8.0,)),
        wrong=(
            (lambda: (16,), "Not all 16 GiB"),
            (lambda: (14,), "by memory"),
            (lambda: (3,), "requests, not limits"),
            (lambda: (4,), "requests, not limits"),
            (lambda: ("8",), "is text"),
        ),
    ),
    Case(
        "10.2",
        right=(lambda: (by_logarithm,),),
        wrong=(
            (lambda: (lambda b, c, g: by_logarithm(b / 2, c, g),), "one byte"),
            (lambda: (lambda b, c, g: by_logarithm(b, c, g / 0.9),), "brim"),
            (lambda: (lambda b, c, g: by_logarithm(b, 0, g),), "keys and values"),
            (lambda: (next_whole,), "powers of two"),
            (lambda: (lambda b, c, g: None,), "gave None"),
        ),
    ),
    Case(
        "10.3",
        right=(lambda: (8 * FEW, MANY), lambda: (5, MANY)),
        wrong=(
            (lambda: (5, 8 * FEW), "eight times"),
            (lambda: (5, FEW), "plan of 100 users"),
            (lambda: (5, 2.5), "no whole number"),
        ),
    ),
)
