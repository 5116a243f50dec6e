from __future__ import annotations

import gc
import math
from functools import cache
from typing import Any

import numpy as np
import psutil
import torch
from transformers import AutoConfig, GPT2Config, GPT2LMHeadModel

from classroom.exercises import lesson_04
from helpers import memory
from helpers.models import cards

from .cases import Case

LLAMA = lesson_04.LARGE


@cache
def gpt2_token() -> int:
    """Bytes of the cache that transformers itself makes for one token; no weights are needed."""
    with torch.device("meta"), torch.inference_mode():
        model = GPT2LMHeadModel(GPT2Config()).half()
        kept = model(input_ids=torch.zeros((1, 1), dtype=torch.long), use_cache=True)
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in kept.past_key_values.layers)


def one_by_one(card_gb: float, tokens: int) -> int:
    """Adds sequences until the estimate no longer fits."""
    of, fitting = memory.shape(LLAMA), 0
    while True:
        needs = memory.estimate(of, tokens - 1, 1, batch=fitting + 1, precision="fp16")
        if needs.weights_mb + needs.kv_cache_mb > card_gb * 1000:
            return fitting
        fitting += 1


def by_hand(
    card: float, tokens: int, weight: float = 2, number: float = 2, giga: float = 1e9
) -> float:
    """The ratio from the published configuration, without the helpers' formula."""
    facts = dict(cards()[LLAMA].config or {})
    config = AutoConfig.for_model(facts.pop("model_type"), **facts)
    each = 2 * config.num_hidden_layers * config.hidden_size * number * tokens
    return (card * giga - weight * memory.shape(LLAMA).parameters) / each


def whole(**other: float) -> Any:
    return lambda card, tokens: max(0, math.floor(by_hand(card, tokens, **other)))


def resident() -> float:
    return psutil.Process().memory_info().rss / 1e6


def measured(touched: bool = False, write: bool = True) -> tuple[float, float, float]:
    """Question 3 measured with another library; an array that is touched at once, or never.

    The middle of three: another test's objects may be freed meanwhile in this process.
    """

    def once() -> tuple[float, float]:
        before = resident()
        array = (np.ones if touched else np.zeros)(lesson_04.NUMBERS)
        created = resident() - before
        if write:
            array.fill(2)
        else:
            array.sum()
        return created, resident() - before

    gc.collect()
    created, used = np.median([once() for _ in range(3)], axis=0)
    return 100, float(created), float(used)


CASES = (
    Case(
        "04.1",
        right=(
            lambda: (gpt2_token(),),
            lambda: (memory.kv_cache_bytes(memory.shape("gpt2"), 1, number_bytes=2),),
            lambda: (np.float64(gpt2_token()),),
        ),
        wrong=(
            (lambda: (2 * gpt2_token(),), "in fp32"),
            (lambda: (gpt2_token() / 2,), "keys \\*and\\* values"),
            (lambda: (gpt2_token() / 4,), "numbers of one kind"),
            (lambda: (gpt2_token() / 64,), "a vector for each token"),
            (lambda: (gpt2_token() * 1024,), "whole context"),
            (lambda: (gpt2_token() * 8,), "bits"),
            (lambda: (gpt2_token() / 12,), "one layer"),
            (lambda: (gpt2_token() / 1000,), r"factor of 1,000\b"),
            (lambda: (gpt2_token() + 1,), "off by one"),
            (lambda: (40_000,), "too high"),
            (lambda: ("36 kB",), "is text"),
        ),
    ),
    Case(
        "04.2",
        right=(
            lambda: (one_by_one,),
            lambda: (whole(),),
            lambda: (lambda card, tokens: np.floor(max(0.0, by_hand(card, tokens))),),
        ),
        wrong=(
            (lambda: (lambda c, t: math.floor(by_hand(c, t)),), "not a negative"),
            (lambda: (lambda c, t: int(by_hand(c, t)),), "not a negative"),
            (lambda: (lambda c, t: max(0, by_hand(c, t)),), "Round down: a part"),
            (lambda: (by_hand,), "Round down, and"),
            (lambda: (lambda c, t: max(0, round(by_hand(c, t))),), "Always round down"),
            (lambda: (lambda c, t: max(0, math.ceil(by_hand(c, t))),), "Always round down"),
            (lambda: (whole(weight=0),), "weights are missing"),
            (lambda: (whole(weight=4, number=4),), "That is fp32"),
            (lambda: (whole(weight=4),), "Your weights are in fp32"),
            (lambda: (whole(number=4),), "Your cache is in fp32"),
            (lambda: (whole(number=1),), "half as large"),
            (lambda: (whole(number=0.5),), "tutorials' formula"),
            (lambda: (lambda c, t: whole()(c, 1),), "no notice of `tokens`"),
            (lambda: (whole(giga=2**30),), "GiB"),
            (
                lambda: (
                    lambda c, t: max(
                        0,
                        int(
                            (c * 1e9 - 14e9) // (memory.kv_cache_bytes(memory.shape(LLAMA), t) / 2)
                        ),
                    ),
                ),
                "the name is rounded",
            ),
            (lambda: (lambda c, t: 9,), r"sequences\(24, 512\) gave 9; 39 is right"),
            (lambda: (lambda c, t: f"{c} GB",), "is text"),
            (lambda: (lambda c, t: [c, t],), "several values"),
            (lambda: (lambda c, t: None,), "gave None"),
            (lambda: (9,), "the function itself"),
        ),
    ),
    Case(
        "04.3",
        right=(
            measured,
            lambda: (0, 0.0, 160.1),
            lambda: (torch.tensor([160.0, -0.3, 152.6]),),
        ),
        wrong=(
            (lambda: measured(touched=True), "`numpy.ones` writes"),
            (lambda: measured(write=False), "reading zeros is not enough"),
            (lambda: (160, 160, 0), "swapped"),
            (lambda: (160, 4096, 1.6e8), "looks like bytes"),
            (lambda: (160, 4, 1.6e5), "looks like kB"),
            (lambda: (0.16, 0, 0.16), "Are these GB"),
            (lambda: (160, 0, -160), "Memory grew"),
            (lambda: (160, 410.2, 570.2), "all that the process holds"),
            (lambda: (160, 0, 80), "half"),
            (lambda: (160, 90, 160), "`created`: 90 MB is too high"),
            (lambda: (160, 0, 320), "`used`: 320 MB is too high"),
            (lambda: (-1, 0, 160), "prediction"),
            (lambda: (0, 160), "3 values"),
            (lambda: (0, "0 MB", 160), "is text"),
        ),
    ),
)
