"""Exercises of lesson 04: a token's cache, sequences on a card, an array that is not there yet."""

from __future__ import annotations

import math
from typing import Any

from classroom.exercises import checks
from classroom.exercises.catalogue import Lesson
from classroom.exercises.question import Question
from classroom.exercises.recap import Recap, RecapQuestion
from helpers import memory

SMALL, LARGE = "gpt2", "llama-2-7b"
NUMBERS, NUMBER_BYTES = 20_000_000, 8  # the array of question 3
SIZE_MB = NUMBERS * NUMBER_BYTES / 1e6


def _check_token(answer: Any) -> str:
    of = memory.shape(SMALL)
    right = memory.kv_cache_bytes(of, tokens=1, number_bytes=2)
    mistakes = [
        (2 * right, "That is in fp32. A number in fp16 has two bytes."),
        (right / 2, "Half: keys *and* values are kept, and each number has two bytes."),
        (right / 4, "These are numbers of one kind. Keys and values, and two bytes each."),
        (right / of.layers, "That is one layer. Each has a cache of its own."),
        (right / of.kv_heads, "That is one head. Each of them keeps keys and values."),
        (right / of.head_size, "Each head keeps a vector for each token, not one number."),
        (right * of.context, "That is a whole context. One token is asked for."),
        (right * 8, "That is bits. A byte has 8."),
    ]
    checks.expect(checks.number(answer, "bytes"), right, "bytes", mistakes, tolerance=0)
    return "Times the tokens, times the sequences: this is the cache that a server must hold."


_CARDS = [(24, 2048), (24, 512), (16, 2048), (80, 4096), (8, 2048), (13, 512)]  # GB, tokens


def _ratio(
    card_gb: float,
    tokens: int,
    weight_bytes: float = 2,
    cache_bytes: float = 2,
    giga: float = 1e9,
    parameters: float | None = None,
) -> float:
    """How many sequences' caches are as large as what the weights leave; negative if none."""
    of = memory.shape(LARGE)
    left = card_gb * giga - (parameters or of.parameters) * weight_bytes
    return left / memory.kv_cache_bytes(of, tokens, number_bytes=cache_bytes)


def _sequences(card_gb: float, tokens: int, **other: float) -> int:
    return max(0, math.floor(_ratio(card_gb, tokens, **other)))


def _check_sequences(calls: Any) -> str:
    negative = "Where not even the weights fit, it is 0 sequences, not a negative number."
    mistakes = [
        (lambda card, tokens: math.floor(_ratio(card, tokens)), negative),
        (lambda card, tokens: int(_ratio(card, tokens)), negative),
        (
            lambda card, tokens: max(0.0, _ratio(card, tokens)),
            "Round down: a part of a sequence serves nobody.",
        ),
        (_ratio, "Round down, and where not even the weights fit, return 0."),
        (
            lambda card, tokens: max(0, round(_ratio(card, tokens))),
            "Always round down: one sequence too many does not fit.",
        ),
        (
            lambda card, tokens: max(0, math.ceil(_ratio(card, tokens))),
            "Always round down: one sequence too many does not fit.",
        ),
        (
            lambda card, tokens: _sequences(card, tokens, weight_bytes=0),
            "The weights are missing: they take their place first.",
        ),
        (
            lambda card, tokens: _sequences(card, tokens, weight_bytes=4, cache_bytes=4),
            "That is fp32. In fp16 a number has two bytes.",
        ),
        (
            lambda card, tokens: _sequences(card, tokens, weight_bytes=4),
            "Your weights are in fp32. In fp16 a parameter has two bytes.",
        ),
        (
            lambda card, tokens: _sequences(card, tokens, cache_bytes=4),
            "Your cache is in fp32 (`kv_cache_bytes` takes it unless told): `number_bytes=2`.",
        ),
        (
            lambda card, tokens: _sequences(card, tokens, cache_bytes=1),
            "Your cache is half as large as it is: keys *and* values, two bytes each.",
        ),
        (
            lambda card, tokens: _sequences(card, tokens, cache_bytes=0.5),
            "That is the tutorials' formula of section 2: a quarter of the cache in fp16.",
        ),
        (
            lambda card, tokens: _sequences(card, 1),
            "This takes no notice of `tokens`: every token of a sequence has its part.",
        ),
        (
            lambda card, tokens: _sequences(card, tokens, giga=2**30),
            "That counts in GiB, steps of 1024. A GB is 10⁹ bytes.",
        ),
        (
            lambda card, tokens: _sequences(card, tokens, parameters=7e9),
            f'That takes 7 billion parameters: the name is rounded. `memory.shape("{LARGE}")` '
            "knows them.",
        ),
    ]
    checks.results(
        calls,
        _CARDS,
        _sequences,
        "sequences",
        mistakes,
        lambda got, wanted: checks.equal(checks.number(got), wanted, 1e-6),
    )
    return "What the weights leave free is the cache's: so many users can a server serve at once."


def _check_array(answer: Any) -> str:
    guess, created, used = (checks.number(part, "MB") for part in answer)
    near = 0.25 * SIZE_MB  # what else a process may take or give back meanwhile

    def close(value: float, wanted: float) -> bool:
        return abs(value - wanted) <= near * max(1.0, wanted / SIZE_MB)

    for factor, unit in ((1e6, "bytes"), (1e3, "kB")):
        if close(used, SIZE_MB * factor):
            raise checks.Wrong(
                f"{used:,.0f} looks like {unit}. Give MB; `get_memory_usage()` counts in them."
            )
    if close(created, SIZE_MB) and close(used, 0):
        raise checks.Wrong(
            "`created` and `used` swapped? Or is `used` what came on top of `created`, or the "
            "memory after the array was deleted?"
        )
    if min(created, used) < -near:
        raise checks.Wrong("Memory grew: take the earlier reading from the later one.")
    if close(created, 0) and close(used, 0):
        raise checks.Wrong(
            "Next to nothing grew. Are these GB? Else write to the array (`array += 1`; reading "
            "zeros is not enough), keep it, and read `get_memory_usage()`, not the peak."
        )
    if close(created, SIZE_MB) and close(used, SIZE_MB):
        raise checks.Wrong(
            "The whole array at once? `numpy.ones` writes to it, `numpy.zeros` does not; and "
            "`created` is read before `array += 1`."
        )
    if created > near and close(used - created, SIZE_MB):
        raise checks.Wrong(
            "That is all that the process holds. Take away what it held before the array."
        )
    if close(created, 0) and abs(used - SIZE_MB / 2) < near / 2:
        raise checks.Wrong(
            f"{used:.0f} MB is half: numpy's numbers have 8 bytes, unless you pass a `dtype`."
        )
    if not close(created, 0):
        raise checks.Wrong(
            f"`created`: {created:g} MB is too {'low' if created < 0 else 'high'}. Measure right "
            "before and right after `numpy.zeros`, with nothing else between."
        )
    if not close(used, SIZE_MB):
        raise checks.Wrong(
            f"`used`: {used:g} MB is too {'low' if used < SIZE_MB else 'high'}. Is the array of "
            f"{NUMBERS:,} numbers written to, kept, and the only new one?"
        )
    if guess < 0:
        raise checks.Wrong("Measured right. But the prediction cannot be negative: memory grows.")
    return (
        f"You predicted {guess:.4g} MB, measured {max(0, created):.0f} MB, and {used:.0f} MB after "
        "use: pages come in when they are first written to."
    )


questions = (
    Question(
        id="04.1",
        task=f"`{SMALL}` has 12 layers, and in each 12 KV heads of size 64. How many **bytes** of "
        "KV cache does **one token** take in **fp16**?",
        start="answer = ...  # bytes, a number",
        check_answer=_check_token,
        hints=(
            "Section 2 computes it for the course's model: look at the formula it prints.",
            "Two for keys and values, times layers, heads, head size, and bytes of a number.",
            "fp16 has 16 bits: two bytes.",
        ),
        code="answer = 2 * 12 * 12 * 64 * 2  # keys and values, layers, heads, size, bytes",
        why="Each layer keeps a key and a value of each head. A full context is 1,024 times as "
        "much, 38 MB, for each sequence.",
    ),
    Question(
        id="04.2",
        task="Write `sequences(card_gb, tokens)`: how many sequences of so many tokens fit beside "
        f"`{LARGE}` in fp16 on a card of `card_gb` GB (10⁹ bytes), as a whole number. Count "
        "weights and KV cache only.",
        start="def sequences(card_gb, tokens):\n    return ...",
        check_answer=_check_sequences,
        ask="sequences",
        inputs=lambda: _CARDS,
        hints=(
            f'`memory.shape("{LARGE}")` knows the parameters, and `memory.kv_cache_bytes(…)` '
            "computes a cache. Which bytes has a number in fp16?",
            "The weights come first. Divide what they leave by the cache of one sequence.",
            "Round down. What if the weights leave less than nothing?",
        ),
        code="from helpers import memory\n\n\n"
        "def sequences(card_gb, tokens):\n"
        f'    shape = memory.shape("{LARGE}")\n'
        "    free = card_gb * 1e9 - 2 * shape.parameters\n"
        "    each = memory.kv_cache_bytes(shape, tokens, number_bytes=2)\n"
        "    return max(0, int(free // each))",
        why="Weights are paid once, the cache by each sequence. Activations and the runtime "
        "take some more, so a real server plans with a margin.",
    ),
    Question(
        id="04.3",
        task=f"*Predict, then measure.* `array = numpy.zeros({NUMBERS:_})` has {SIZE_MB:.0f} MB. "
        "By how many **MB** does resident memory grow when it is made? Predict. Then read "
        "`get_memory_usage()` of `helpers.monitor` before, right after making it, and after "
        "`array += 1`.",
        start="guess = ...  # MB, when it is made: write it before you measure\n"
        "created = ...  # MB more than before: code that measures\n"
        "used = ...  # MB more than before, after array += 1",
        check_answer=_check_array,
        ask="guess, created, used",
        hints=(
            "`before = get_memory_usage()` is all that the process holds, in MB.",
            "`created = get_memory_usage() - before`, on the line after `numpy.zeros`.",
            "`array += 1` writes to every number. Then take `before` away once more.",
        ),
        code="import numpy\n\n"
        "from helpers.monitor import get_memory_usage\n\n"
        f"guess = {SIZE_MB:.0f}\n"
        "before = get_memory_usage()\n"
        f"array = numpy.zeros({NUMBERS:_})\n"
        "created = get_memory_usage() - before\n"
        "array += 1\n"
        "used = get_memory_usage() - before\n"
        "del array",
        why="The system promises pages, and gives each when it is first written to. So it is with "
        "the weights of a mapped file: memory right after loading says too little.",
    ),
)

recap = Recap(
    "04",
    (
        RecapQuestion(
            "A model has 1 billion parameters in fp16. Is a container of 2 GB enough?",
            ("Yes, the weights are exactly 2 GB", "Yes, fp16 needs only 1 GB",
             "No, three more parts come on top"),
            2,
            "The weights alone are 2 GB. Runtime, KV cache and activations come on top, and "
            "while loading perhaps a second copy in another format.",
        ),
        RecapQuestion(
            "Why measure the peak in a fresh process, after a generation?",
            ("Else it shows too little, or old memory", "A fresh process is faster",
             "The first generation frees memory"),
            0,
            "Mapped weights come into memory only when used: before a generation you see too "
            "little. An old process keeps memory from earlier work: too much.",
        ),
        RecapQuestion(
            "Which part of the memory grows with the number of users?",
            ("The weights", "The KV cache, and activations", "The runtime"),
            1,
            "Tokens × sequences: each user brings a cache. Weights and runtime stay.",
        ),
    ),
)  # fmt: skip

lesson = Lesson("04", questions, recap)
