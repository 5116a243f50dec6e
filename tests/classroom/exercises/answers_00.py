from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from classroom.exercises import lesson_00, reference

from .cases import Case


def probabilities(model: str = reference.MODEL) -> torch.Tensor:
    """The next token's, by hand: neither the helper's table nor its softmax."""
    logits = reference.generator(model).next_token_logits(lesson_00.PROMPT).double()
    return (logits - logits.logsumexp(0)).exp()


def share(top: int = lesson_00.BEST, model: str = reference.MODEL) -> float:
    return float(100 * probabilities(model).topk(top).values.sum())


def after() -> float:
    table = reference.generator().next_token_probabilities(lesson_00.PROMPT, top=10)
    return float(100 * table["after"].sum())


CASES = (
    Case(
        "00.1",
        right=(lambda: (14,), lambda: (np.float32(14),), lambda: (torch.tensor([14.0]),)),
        wrong=(
            (lambda: (28,), "four bytes"),
            (lambda: (7.0,), "one byte a parameter"),
            (lambda: (7e9 * 2 / 2**30,), "GiB"),
            (lambda: (14e9,), "factor of 1,000,000,000: the answer is in GB"),
            (lambda: (14_000,), r"factor of 1,000\b"),
            (lambda: (112,), "gigabits"),
            (lambda: ("14 GB",), "is text.*without quotes, unit"),
            (lambda: ("fourteen",), "is text"),
            (lambda: (None,), "None, no value"),
            (lambda: (True,), "truth value"),
            (lambda: ([14, 14],), "several values"),
            (lambda: (float("nan"),), "nan"),
            (lambda: (15,), "off by one"),
            (lambda: (-14,), "wrong sign"),
            (lambda: (3,), "too low"),
            (lambda: (len,), "function `len` itself"),
        ),
    ),
    Case(
        "00.2",
        right=(lambda: (0.0, 2.0), lambda: ((0, 2),), lambda: (np.array([0.0, 2.0]),)),
        wrong=(
            (lambda: (2, 0), "swap"),
            (lambda: (0, 3), "3 is what was refused"),
            (lambda: (1, 2), "not the lowest"),
            (lambda: (0, 1), "not the highest"),
            (lambda: (2,), "2 values are asked for"),
            (lambda: ("0", "2"), "is text"),
        ),
    ),
    Case(
        "00.3",
        right=(lambda: (5, share()), lambda: ((99.5, round(share(), 1)),)),
        wrong=(
            (lambda: (50, share() / 100), "share from 0 to 1"),
            (lambda: (50, share(1)), "best candidate alone"),
            (lambda: (50, share(5)), "five candidates"),
            (lambda: (50, share() / 10), "mean of the ten"),
            (lambda: (50, after()), "column `before`"),
            (lambda: (50, 100), "All tokens together"),
            (lambda: (150, share()), "between 0 and 100"),
            (lambda: (50, f"{share()} %"), "is text"),
            (lambda: (50, pd.DataFrame({"before": [1.0]})), "type DataFrame"),
        ),
    ),
)
