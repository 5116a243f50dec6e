from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal

import numpy as np

from classroom.exercises import lesson_01, reference

from .cases import Case


def counted(text: str) -> int:
    """Tokens by the library below transformers."""
    return len(reference.tokenizer().backend_tokenizer.encode(text).ids)


def limited(measure: Callable[[str], int], extra: int = 0) -> Callable[[str, int], bool]:
    """A `fits` that measures a text's length in its own way."""
    return lambda text, new: measure(text) + new + extra <= reference.context()


def another_fits(text: str, new_tokens: int) -> np.bool_:
    room = reference.context() - np.int64(counted(text))
    return room >= new_tokens


def ratio(indent: int | None = 4, separators: tuple[str, str] | None = (",", ":")) -> float:
    wide = json.dumps(lesson_01.REQUEST, indent=indent)
    return counted(wide) / counted(json.dumps(lesson_01.REQUEST, separators=separators))


def characters() -> float:
    wide = json.dumps(lesson_01.REQUEST, indent=4)
    return len(wide) / len(json.dumps(lesson_01.REQUEST, separators=(",", ":")))


CASES = (
    Case(
        "01.1",
        right=(lambda: (3300,), lambda: (Decimal(3300),), lambda: (sum([110.0] * 30),)),
        wrong=(
            (lambda: (110,), "one day"),
            (lambda: (900,), "prompts alone"),
            (lambda: (2400,), "written tokens alone"),
            (lambda: (4200,), "prices are swapped"),
            (lambda: (1500,), "price of reading for all"),
            (lambda: (6000,), "price of writing for all"),
            (lambda: (3.3e9,), "for a million tokens"),
            (lambda: (0.033,), "one request a day"),
            (lambda: (3410,), "31 days"),
            (lambda: ("$3,300",), "is text"),
            (lambda: (330_000,), "factor of 100"),
        ),
    ),
    Case(
        "01.2",
        right=(lambda: (another_fits,), lambda: (limited(counted),)),
        wrong=(
            (lambda: (limited(len),), "counts characters"),
            (lambda: (limited(lambda text: len(text.split())),), "counts words"),
            (lambda: (limited(lambda text: len(text.encode())),), "counts bytes"),
            (lambda: (limited(counted, extra=1),), "Off by one"),
            (lambda: (lambda text, new: counted(text) <= reference.context(),), "prompt alone"),
            (lambda: (lambda text, new: not limited(counted)(text, new),), "Upside down"),
            (lambda: (lambda text, new: True,), r"fits\(.*gave True; False is right"),
            (lambda: (lambda text, new: counted(text) + new,), "neither True nor False"),
            (lambda: (lambda text: True,), "raised TypeError"),
            (lambda: (lambda text, new: print(end=""),), "gave None"),
            (lambda: (True,), "the function itself"),
        ),
    ),
    Case(
        "01.3",
        right=(lambda: (2, ratio()), lambda: (1.1, round(ratio(), 2))),
        wrong=(
            (lambda: (1, characters()), "ratio of characters"),
            (lambda: (1, ratio(separators=None)), "pass `separators`"),
            (lambda: (1, 1 / ratio()), "Upside down"),
            (lambda: (1, ratio() - 1), "how much \\*more"),
            (lambda: (1, 100 * ratio()), "in percent"),
            (lambda: (1, counted(json.dumps(lesson_01.REQUEST, indent=4))), "the count of"),
            (lambda: (0, ratio()), "above 0"),
            (lambda: (ratio(),), "2 values"),
        ),
    ),
)
