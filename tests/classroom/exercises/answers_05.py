from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch

from classroom.exercises import lesson_05, reference
from helpers.models import models_folder
from helpers.quality import bits_per_byte

from .cases import Case

Choice = Callable[[list[dict[str, Any]], float, float], Any]


def with_pandas(rows: list[dict[str, Any]], most_mb: float, least_speed: float) -> str:
    columns = ["model", "peak_mb", "tokens_per_s", "bits_per_byte"]
    table = pd.DataFrame(rows, columns=columns)
    table = table.query("peak_mb <= @most_mb and tokens_per_s >= @least_speed")
    return "none" if table.empty else str(table.sort_values("bits_per_byte").model.iloc[0])


def in_a_loop(rows: list[dict[str, Any]], most_mb: float, least_speed: float) -> str:
    best, fewest = "none", 9.0
    for row in rows:
        if row["peak_mb"] > most_mb or row["tokens_per_s"] < least_speed:
            continue
        if row["bits_per_byte"] < fewest:
            best, fewest = row["model"], row["bits_per_byte"]
    return best


def either(rows: list[dict[str, Any]], most_mb: float, least_speed: float) -> str:
    kept = [r for r in rows if r["peak_mb"] <= most_mb or r["tokens_per_s"] >= least_speed]
    return in_a_loop(kept, 9e9, 0)


def by(column: str, highest: bool) -> Choice:
    """Within the limits, but chosen by something else."""

    def choose(rows: list[dict[str, Any]], most_mb: float, least_speed: float) -> str:
        kept = [r for r in rows if r["peak_mb"] <= most_mb and r["tokens_per_s"] >= least_speed]
        kept.sort(key=lambda row: row[column], reverse=highest)
        return str(kept[0]["model"]) if kept else "none"

    return choose


@cache
def bits(context: int) -> float:
    model = reference.generator()
    text = (models_folder() / "heldout.md").read_text(encoding="utf-8")
    return bits_per_byte(model.model, model.tokenizer, text, context, batch_size=3)


def ratio(few: int = lesson_05.FEW, many: int = lesson_05.MANY) -> float:
    return bits(few) / bits(many)


CASES = (
    Case(
        "05.1",
        right=(lambda: (20,), lambda: (np.float64(19.99),), lambda: (torch.tensor(20.0),)),
        wrong=(
            (lambda: (100 / 2.6,), "counts the prompt, and the text may end"),
            (lambda: (60 / 2.6,), "tokens that were allowed"),
            (lambda: (60 / 2.5,), "tokens that were allowed"),
            (lambda: (91 / 2.6,), "read and not written"),
            (lambda: (51 / 2.6,), "mixes both parts"),
            (lambda: (51 / 2.5,), "first token was there when this time began"),
            (lambda: (50 / 2.6,), "Take the time to first token away"),
            (lambda: (50 / 2.7,), "do not add it"),
            (lambda: (2.5 / 50,), "upside down"),
            (lambda: (0.02,), "factor of 1,000"),
            (lambda: ("20 tokens/s",), "is text"),
        ),
    ),
    Case(
        "05.2",
        right=(lambda: (with_pandas,), lambda: (in_a_loop,)),
        wrong=(
            (lambda: (by("bits_per_byte", True),), "most bits per byte"),
            (lambda: (by("tokens_per_s", True),), "takes the fastest"),
            (lambda: (by("peak_mb", False),), "takes the smallest"),
            (lambda: (lambda rows, mb, speed: in_a_loop(rows, mb, 0),), "notice of `least_speed`"),
            (lambda: (lambda rows, mb, speed: in_a_loop(rows, 9e9, speed),), "notice of `most_mb`"),
            (lambda: (lambda rows, mb, speed: in_a_loop(rows, 9e9, 0),), "best of all models"),
            (
                lambda: (lambda rows, mb, speed: in_a_loop(rows, mb - 0.01, speed + 0.01),),
                "still allowed",
            ),
            (lambda: (either,), "`and`, not `or`"),
            (
                lambda: (lambda *given: None if in_a_loop(*given) == "none" else "cat",),
                'the text `"none"`',
            ),
            (
                lambda: (
                    lambda rows, mb, speed: min(rows, key=lambda r: r["bits_per_byte"])["model"],
                ),
                "raised ValueError",
            ),
            (lambda: (lambda rows, mb, speed: rows[:1],), r"choose\(.*gave .*'ox' is right"),
            (lambda: ("cat",), "the function itself"),
        ),
    ),
    Case(
        "05.3",
        right=(lambda: (2, ratio()), lambda: (torch.tensor([1.1, ratio()]),)),
        wrong=(
            (lambda: (2, 1 / ratio()), "Upside down"),
            (lambda: (2, bits(lesson_05.FEW) - bits(lesson_05.MANY)), "the difference"),
            (lambda: (2, bits(lesson_05.FEW)), "with 8 tokens. Divide"),
            (lambda: (2, bits(lesson_05.MANY)), "number to divide by"),
            (lambda: (2, ratio() - 1), r"how much \*more"),
            (lambda: (2, 100 * ratio() - 100), r"percent \*more"),
            (lambda: (2, 100 * ratio()), "in percent"),
            (lambda: (2, 1.0), "measured twice"),
            (lambda: (2, ratio(few=64)), "too low"),
            (lambda: (0, ratio()), "above 0"),
            (lambda: (ratio(),), "2 values"),
            (lambda: (2, None), "None, no value"),
        ),
    ),
)
