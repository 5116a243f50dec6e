from __future__ import annotations

import math

from classroom.exercises import lesson_07, reference

from .cases import Case


def by_logarithms() -> float:
    return math.exp(-sum(map(math.log, lesson_07.SHARES)) / len(lesson_07.SHARES))


def by_loop(text: str, stop: str) -> str:
    for n in range(len(stop) - 1, 0, -1):
        if text[-n:] == stop[:n]:
            return text[:-n]
    return text


def first_tokens() -> int:
    """Counted from the texts' side: each beginning of a text, looked up among the pieces."""
    tokenizer = reference.tokenizer()
    starts = {text[:n] for text in lesson_07.ALLOWED for n in range(1, len(text) + 1)}
    return sum(tokenizer.decode([i]) in starts for i in range(len(tokenizer)))


def vocabulary() -> int:
    return len(reference.tokenizer())


CASES = (
    Case(
        "07.1",
        right=(lambda: (by_logarithms(),), lambda: (4.0,)),
        wrong=(
            (lambda: (0.28125,), "mean of the probabilities"),
            (lambda: (1 / 0.28125,), "logarithms first"),
            (lambda: (256,), "all tokens together"),
            (lambda: (2,), "exponent"),
            (lambda: (0.25,), "made negative"),
            (lambda: (math.log(4),), "negative mean"),
            (lambda: ("4",), "is text"),
        ),
    ),
    Case(
        "07.2",
        right=(lambda: (by_loop,),),
        wrong=(
            (lambda: (lambda text, stop: text,), "holds nothing back"),
            (
                lambda: (lambda text, stop: text[: max(0, len(text) - len(stop) + 1)],),
                "same number",
            ),
            (
                lambda: (lambda text, stop: text[len(by_loop(text, stop)) :],),
                "other way round",
            ),
            (
                lambda: (lambda text, stop: text[:-1] if text.endswith(stop[0]) else text,),
                "one character only",
            ),
            (lambda: (lambda text, stop: None,), "gave None"),
        ),
    ),
    Case(
        "07.3",
        right=(lambda: (3, first_tokens()),),
        wrong=(
            (lambda: (3, vocabulary()), "whole vocabulary"),
            (lambda: (3, vocabulary() - first_tokens()), "takes away"),
            (lambda: (3, 3), "texts|tokenizer would begin"),
            (lambda: (3, 2.5), "no whole number"),
        ),
    ),
)
