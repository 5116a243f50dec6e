from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import TopPLogitsWarper

from classroom.exercises import lesson_03, reference

from .cases import Case

Row = list[float]


def cut_by_transformers() -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens left and the best one's percent, by the library's own cut."""
    logits = torch.tensor([lesson_03.SHARES], dtype=torch.double).log()
    after = TopPLogitsWarper(lesson_03.CUT / 100)(None, logits).softmax(-1)
    return (after > 0).sum(), 100 * after.max()


def by_softmax(probabilities: Row, temperature: float) -> torch.Tensor:
    return (torch.tensor(probabilities).log() / temperature).softmax(-1)


def rounded(probabilities: Row, temperature: float) -> tuple[float, ...]:
    weights = [math.exp(math.log(p) / temperature) for p in probabilities]
    return tuple(round(weight / math.fsum(weights), 3) for weight in weights)


def batched(probabilities: Row, temperature: float) -> torch.Tensor:
    """As a model gives it: a row for each text, here one."""
    return by_softmax(probabilities, temperature)[None]


def unshared(power: Callable[[float], float]) -> Callable[[Row, float], Row]:
    return lambda p, t: [each ** power(t) for each in p]


def sorted_count(temperature: float = lesson_03.TEMPERATURE, top_p: float = lesson_03.TOP_P) -> int:
    """Tokens that top-p leaves, counted by hand from the logits."""
    logits = reference.generator().next_token_logits(lesson_03.PROMPT).double() / temperature
    reached = logits.softmax(-1).sort(descending=True).values.cumsum(-1)
    return int((reached < top_p).sum()) + 1


def vocabulary() -> int:
    return len(reference.tokenizer())


GREEDY = {"temperature": 0}
TOLD: dict[str, Any] = {"temperature": 0.8, "top_p": 0.9}


def chosen(**jobs: object) -> dict[str, object]:
    """A good choice, but for what is given."""
    return {"extract": GREEDY, "answer": GREEDY, "story": TOLD} | jobs


def begun(length: int = 1, **story: Any) -> int:
    """Different tokens among the first ones of eight stories."""
    write = reference.generator().generate
    texts = (write("Once upon a time", max_new_tokens=12, seed=n, **story) for n in range(8))
    return len({token for text in texts for token in text.new_ids[0][:length]})


CASES = (
    Case(
        "03.1",
        right=(
            cut_by_transformers,
            lambda: (3.0, 58.8),
            lambda: (3, 59),
            lambda: (torch.tensor([3, 58.82]),),
        ),
        wrong=(
            (lambda: (2, 71.4), "`left`: these reach only 70 %"),
            (lambda: (4, 52.6), "`left`: that is more than needed"),
            (lambda: (5, 50), "`left`: that is all of them"),
            (lambda: (85, 58.8), "Count them"),
            (lambda: (2.5, 58.8), "no whole number"),
            (lambda: (58.8, 3), "other way round"),
            (lambda: (3, 50), "`best`: that is before the cut"),
            (lambda: (3, 62.5), "hold 85 %, not 80 %"),
            (lambda: (3, 50 / 85), "share from 0 to 1"),
            (lambda: (3, 55), "not shared equally"),
            (lambda: (3, 65), "whole rest"),
            (lambda: (3, 85), "held together before"),
            (lambda: (3, "58.8 %"), "is text"),
            (lambda: (3,), "2 values"),
        ),
    ),
    Case(
        "03.2",
        right=(lambda: (by_softmax,), lambda: (rounded,), lambda: (batched,)),
        wrong=(
            (lambda: (unshared(lambda t: 1 / t),), "add up to 1"),
            (lambda: (lambda p, t: by_softmax(p, 1 / t),), "other way round"),
            (lambda: (lambda p, t: (torch.tensor(p) / t).softmax(-1),), "take their logarithm"),
            (lambda: (lambda p, t: torch.tensor(p).log() / t,), "logits still"),
            (lambda: (lambda p, t: torch.tensor(p) / t,), "divides the probabilities"),
            (lambda: (lambda p, t: p,), "as they were"),
            (lambda: (lambda p, t: 100 * by_softmax(p, t),), "percent"),
            (lambda: (lambda p, t: by_softmax(p, t).max(),), r"heated\(.*gave 0.6"),
            (lambda: (lambda p, t: by_softmax(p, t)[:2],), r"gave \[0.65.*0.1052.* is right"),
            (lambda: (lambda p, t: [str(x) for x in p],), "gave .'0.5'"),
            (lambda: (lambda p, t: p.softmax(-1),), "raised AttributeError"),
            (lambda: (lambda p, t: None,), "gave None"),
            (lambda: ([0.5, 0.3, 0.2],), "the function itself"),
        ),
    ),
    Case(
        "03.3",
        right=(
            lambda: (100, sorted_count()),
            lambda: (2000.5, torch.tensor(float(sorted_count()))),
            lambda: (1, sorted_count() + 1),  # the last token's place hangs on rounding
        ),
        wrong=(
            (lambda: (100, vocabulary()), "whole vocabulary"),
            (lambda: (100, vocabulary() - sorted_count()), "cut off"),
            (lambda: (100, sorted_count(temperature=1)), "at temperature 1"),
            (lambda: (100, 50), "Top-k is still on"),
            (lambda: (100, sorted_count() / vocabulary()), "share of the vocabulary"),
            (lambda: (100, 1), "sum of probabilities"),
            (lambda: (100, sorted_count() // 2), "too low"),
            (lambda: (0, sorted_count()), "prediction must lie"),
            (lambda: (10**6, sorted_count()), "prediction must lie"),
            (lambda: (100, f"{sorted_count()} tokens"), "is text"),
            (lambda: (sorted_count(),), "2 values"),
        ),
    ),
    Case(
        "03.4",
        right=(
            lambda: (chosen(), begun(**TOLD)),
            lambda: (chosen(story={"top_k": 40}), begun(top_k=40)),
            lambda: (
                chosen(extract={"temperature": 0.2, "top_p": 0.9}, answer={"top_k": 1}),
                np.int64(begun(**TOLD)),
            ),
            lambda: (
                chosen(answer=GREEDY | {"repetition_penalty": 1.3}),
                begun(**TOLD),
            ),
        ),
        wrong=(
            (lambda: (chosen(extract={"temperature": 1.1, "top_k": 0}), 8), "one right answer"),
            (lambda: (chosen(answer={"temperature": 1.1, "top_k": 0}), 8), "`answer`: at this"),
            (
                lambda: (chosen(extract=GREEDY | {"repetition_penalty": 1.3}), 8),
                "stands in the prompt",
            ),
            (lambda: (chosen(extract=GREEDY | {"no_repeat_ngram_size": 3}), 8), "Leave penalties"),
            (lambda: (chosen(story=GREEDY), 1), "gave 1 different stories"),
            (lambda: (chosen(story={"temperature": 1.5, "top_k": 0}), 8), "Cut off the tail"),
            (lambda: (chosen(), begun(12, **TOLD)), "counts all their tokens"),
            (lambda: (chosen(), begun(**TOLD) + 1), "off by one"),
            (lambda: (chosen(story="creative"), 8), "give a dictionary"),
            (lambda: (chosen(story={"seed": 3}), 8), "not to be chosen here"),
            (lambda: (chosen(story={"temperature": 3}), 8), "`story`: temperature=3"),
            (lambda: ({"story": TOLD}, 8), "dictionary with the jobs"),
            (lambda: (chosen(),), "2 values"),
        ),
    ),
)
