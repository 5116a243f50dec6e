from __future__ import annotations

import numpy as np

from classroom.exercises import lesson_08

from .cases import Case


def by_numpy(block: bytes) -> list[float]:
    scale = float(np.frombuffer(block[:2], "<f2")[0])
    codes = np.frombuffer(block[2:], np.uint8)
    return [scale * (int(c) - 8) for c in np.concatenate([codes % 16, codes // 16])]


CASES = (
    Case(
        "08.1",
        right=(lambda: (80.0,), lambda: (280 / 3.5,)),
        wrong=(
            (lambda: (40,), "half a byte"),
            (lambda: (10,), "four bytes"),
            (lambda: (20,), "two bytes"),
            (lambda: (0.0125,), "Turn it round"),
            (lambda: (3.5,), "gigabytes of the weights"),
            (lambda: ("80",), "is text"),
        ),
    ),
    Case(
        "08.2",
        right=(lambda: (by_numpy,),),
        wrong=(
            (lambda: (lesson_08._woven,), "side by side"),
            (lambda: (lesson_08._swapped,), "low halves are the first"),
            (lambda: (lesson_08._no_shift,), "Take 8 off"),
            (
                lambda: (lambda b: [n / lesson_08._scale(b) for n in by_numpy(b)],),
                "scale is missing",
            ),
            (lambda: (lambda block: None,), "gave None"),
        ),
    ),
    Case(
        "08.3",
        right=(lambda: (4, 3.3616), lambda: (2, (1 - 0.8**5) / (1 - 0.8))),
        wrong=(
            (lambda: (4, 3.2), "by itself"),
            (lambda: (4, 4.2), "sum powers"),
            (lambda: (4, 2.3616), "adds itself"),
            (lambda: (4, 2.952), "power is missing"),
            (lambda: (4, 5), "every token"),
        ),
    ),
)
