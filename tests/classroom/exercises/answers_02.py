from __future__ import annotations

from typing import Any

import torch

from .cases import Case


def by_formula(prompt: int, new: int, cache: bool) -> Any:
    """The sum of an arithmetic row, as a tensor."""
    all_passes = new * prompt + new * (new - 1) / 2
    return torch.tensor(prompt + new - 1 if cache else all_passes)


def by_lists(prompt: int, new: int, cache: bool) -> int:
    passes, read = 0, 0
    for length in range(prompt, prompt + new):
        passes += length - (read if cache else 0)
        read = length
    return passes


CASES = (
    Case(
        "02.1",
        right=(lambda: (20, 50), lambda: (torch.tensor([20, 50]),), lambda: ([20.0, 50.0],)),
        wrong=(
            (lambda: (50, 50), "`max_length`: 50 is prompt and new"),
            (lambda: (50, 20), "other way round"),
            (lambda: (80, 50), "taken away, not added"),
            (lambda: (20, 20), "`max_new_tokens`: this limit does not count"),
            (lambda: (20, 80), "`max_new_tokens`: that is prompt and new"),
            (lambda: (19, 50), "off by one"),
            (lambda: (20.5, 50), "no whole number"),
            (lambda: (20,), "2 values"),
        ),
    ),
    Case(
        "02.2",
        right=(lambda: (by_formula,), lambda: (by_lists,)),
        wrong=(
            (lambda: (lambda p, n, cache: by_lists(p, n, not cache),), "other way round"),
            (
                lambda: (lambda p, n, cache: p + n if cache else by_lists(p, n, False),),
                "last token",
            ),
            (
                lambda: (lambda p, n, cache: p + n if cache else n * p + n * (n + 1) // 2,),
                "first pass reads the prompt alone",
            ),
            (lambda: (lambda p, n, cache: p + n - 1 if cache else p * n,), "text grows"),
            (lambda: (lambda p, n, cache: p + n - 1,), "no notice of `cache`"),
            (lambda: (lambda p, n, cache: by_lists(p, n, False),), "no notice of `cache`"),
            (lambda: (lambda p, n, cache: str(p + n),), "is text"),
            (lambda: (lambda p, n, cache: p // 0,), "raised ZeroDivisionError"),
            (lambda: (lambda p, n, cache: p,), r"passed\(100, 20, True\) gave 100; 119 is right"),
        ),
    ),
    Case(
        "02.3",
        right=(
            lambda: (3, 0.2, 0.5),
            lambda: (torch.tensor([8.0, 0.15, 0.41]),),
            lambda: (3, 0.1, 1.4),
        ),
        wrong=(
            (lambda: (8, 150.0, 420.0), "milliseconds"),
            (lambda: (8, 0.5, 0.2), "swapped"),
            (lambda: (8, 0.2, 0.2), "measured twice"),
            (lambda: (8, 0.1, 4.0), "40 times as long"),
            (lambda: (8, 0.0, 1.0), "above 0"),
            (lambda: (8, 0.00002, 0.00005), "too short"),
            (lambda: (-1, 0.2, 0.5), "prediction"),
            (lambda: (8, 2.5), "3 values"),
            (lambda: (8, "0.2 s", 0.5), "is text"),
        ),
    ),
)
