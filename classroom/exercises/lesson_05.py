"""Exercises of lesson 05: a decode speed, a choice under a budget, the worth of context."""

from __future__ import annotations

from functools import cache
from typing import Any

from classroom.exercises import checks, reference
from classroom.exercises.catalogue import Lesson
from classroom.exercises.question import Question
from classroom.exercises.recap import Recap, RecapQuestion

PROMPT_TOKENS, MAX_LENGTH, WRITTEN = 40, 100, 51
TTFT, TOTAL = 0.1, 2.6  # seconds; the first is part of the second
FEW, MANY = 8, 512  # tokens of context


def _check_speed(answer: Any) -> str:
    decode = TOTAL - TTFT
    counted_wrong = "`max_length` counts the prompt, and the text may end before it."
    limit = "That counts the tokens that were allowed. The text ended early: 51 were written."
    mistakes = [
        (MAX_LENGTH / TOTAL, counted_wrong),
        (MAX_LENGTH / decode, counted_wrong),
        ((MAX_LENGTH - PROMPT_TOKENS) / TOTAL, limit),
        ((MAX_LENGTH - PROMPT_TOKENS) / decode, limit),
        ((MAX_LENGTH - PROMPT_TOKENS - 1) / decode, limit),
        (
            (PROMPT_TOKENS + WRITTEN) / TOTAL,
            "That counts the prompt as well, which was read and not written.",
        ),
        (
            (PROMPT_TOKENS + WRITTEN) / decode,
            "That counts the prompt as well, which was read and not written.",
        ),
        (
            WRITTEN / TOTAL,
            "That mixes both parts: the time to first token is no decoding, and the first token "
            "belongs to it. Take both away.",
        ),
        (
            WRITTEN / decode,
            "Almost: the first token was there when this time began. It is not counted.",
        ),
        ((WRITTEN - 1) / TOTAL, "Take the time to first token away from the seconds, too."),
        (
            (WRITTEN - 1) / (TOTAL + TTFT),
            "The time to first token is part of the 2.6 s: take it away, do not add it.",
        ),
    ]
    right = (WRITTEN - 1) / decode
    checks.expect(checks.number(answer), right, "tokens a second", mistakes)
    return "Tokens after the first, by the time after the first. TTFT tells the rest of the story."


def _rows(*facts: tuple[str, float, float, float]) -> list[dict[str, Any]]:
    """Measured models as rows with the names of the columns of `compare`."""
    names = ("model", "peak_mb", "tokens_per_s", "bits_per_byte")
    return [dict(zip(names, row, strict=True)) for row in facts]


_MODELS = _rows(
    ("mouse", 400, 200, 1.8),  # the smallest
    ("rat", 450, 180, 1.9),  # the worst
    ("cat", 500, 150, 1.6),
    ("dog", 600, 300, 1.7),  # the fastest
    ("ox", 900, 90, 1.2),  # the best
)
_BUDGETS: list[tuple[list[dict[str, Any]], float, float]] = [
    (_MODELS, 2000, 10),
    (_MODELS, 800, 10),
    (_MODELS, 2000, 160),
    (_MODELS, 450, 10),
    (_MODELS, 500, 150),
    (_MODELS, 600, 300),
    (_MODELS, 399, 10),
    (_MODELS[::-1], 550, 180),
    (_MODELS[::-1], 450, 310),
    ([], 1000, 10),
]


def _choose(
    rows: list[dict[str, Any]],
    most_mb: float,
    least_speed: float,
    by: str = "bits_per_byte",
    sign: int = 1,
) -> str:
    """The model with the lowest `by` (the highest with sign -1) within both limits."""
    fitting = [r for r in rows if r["peak_mb"] <= most_mb and r["tokens_per_s"] >= least_speed]
    return str(min(fitting, key=lambda r: sign * r[by])["model"]) if fitting else "none"


def _check_choose(calls: Any) -> str:
    huge = 1e12
    mistakes = [
        (
            lambda rows, mb, speed: _choose(rows, mb, speed, sign=-1),
            "That takes the most bits per byte. Fewer are better: less surprised.",
        ),
        (
            lambda rows, mb, speed: _choose(rows, mb, speed, "tokens_per_s", -1),
            "That takes the fastest. Speed is a limit here; among the rest quality decides.",
        ),
        (
            lambda rows, mb, speed: _choose(rows, mb, speed, "peak_mb"),
            "That takes the smallest. Memory is a limit here; among the rest quality decides.",
        ),
        (
            lambda rows, mb, speed: _choose(rows, mb, 0),
            "This takes no notice of `least_speed`.",
        ),
        (
            lambda rows, mb, speed: _choose(rows, huge, speed),
            "This takes no notice of `most_mb`.",
        ),
        (
            lambda rows, mb, speed: _choose(rows, huge, 0),
            "That is the best of all models. Strike out first what breaks a limit.",
        ),
        (
            lambda rows, mb, speed: _choose(rows, mb - 1e-6, speed + 1e-6),
            "At the limits: a model with exactly `most_mb` or `least_speed` is still allowed.",
        ),
        (
            lambda rows, mb, speed: _choose(
                [r for r in rows if r["peak_mb"] <= mb or r["tokens_per_s"] >= speed], huge, 0
            ),
            "A model must keep both limits: `and`, not `or`.",
        ),
    ]
    if any(call.get("value", call) in (None, "") for call in calls):
        raise checks.Wrong('Where no model keeps the limits, give the text `"none"`.')
    checks.results(calls, _BUDGETS, _choose, "choose", mistakes)
    return "Limits first, quality among the rest: no weights of this and that to argue about."


@cache
def _bits(context: int) -> float:
    """Bits a byte of the held-out text, measured once: marking asks for many learners."""
    from helpers.models import models_folder
    from helpers.quality import bits_per_byte

    model = reference.generator()
    text = (models_folder() / "heldout.md").read_text(encoding="utf-8")
    return bits_per_byte(model.model, model.tokenizer, text, context)


def _check_context(answer: Any) -> str:
    guess, measured = (checks.number(part) for part in answer)
    few, many = _bits(FEW), _bits(MANY)
    right = few / many
    mistakes = [
        (many / few, f"Upside down: the bits with {FEW} tokens over those with {MANY}."),
        (few - many, "That is the difference. Divide one by the other."),
        (few, f"That is the bits per byte with {FEW} tokens. Divide them by the others."),
        (many, f"That is the bits per byte with {MANY} tokens: the number to divide by."),
        (right - 1, "That is how much *more*. The ratio is 1 larger."),
        (100 * (right - 1), "That is how many percent *more*. Asked for: how many times."),
        (100 * right, "That is in percent. Asked for: how many times."),
        (1, "1 means no difference: was the same `context` measured twice?"),
    ]
    words = f"too {'low' if measured < right else 'high'}. Check model, text and both contexts."
    mistakes.append((measured, f"{measured:.4g} is {words}"))  # close to 1: no other guess helps
    checks.expect(measured, right, "times as many bits", mistakes, tolerance=0.008)
    return (
        f"{checks.compare_ratio(guess, measured)} Compare models with the same window, or the "
        "window is part of what you compare."
    )


questions = (
    Question(
        id="05.1",
        task="A call with `max_length=100` reads a prompt of 40 tokens and writes 51, then the "
        "text ends. The first token is there after 0.1 s, the last after 2.6 s, both counted "
        "from the call. What is the **decode speed** in tokens a second, the first token left "
        "out?",
        start="answer = ...  # tokens a second, a number",
        check_answer=_check_speed,
        hints=(
            "Decode speed is about what comes after the first token: tokens and time.",
            "How many of the 51 tokens come after the first? How long do they take?",
            "`max_length` and the prompt are not needed at all.",
        ),
        code="answer = (51 - 1) / (2.6 - 0.1)",
        why="50 tokens took 2.5 s. `max_length` over the whole time would claim almost twice as "
        "much: it counts what was read, and what was never written.",
    ),
    Question(
        id="05.2",
        task="Write `choose(rows, most_mb, least_speed)`: the name of the model with the best "
        "`bits_per_byte` among those with at most `most_mb` of `peak_mb` and at least "
        '`least_speed` of `tokens_per_s`; `"none"` if there is none. `rows` is a list of '
        'dictionaries, as `good.to_dict("records")` gives.',
        start="def choose(rows, most_mb, least_speed):\n    return ...",
        check_answer=_check_choose,
        ask="choose",
        inputs=lambda: _BUDGETS,
        hints=(
            'Strike out first: `[row for row in rows if row["peak_mb"] <= most_mb and …]`.',
            "Nothing left? Then the answer is decided.",
            'The best of a list: `min(fitting, key=lambda row: row["bits_per_byte"])`.',
        ),
        code="def choose(rows, most_mb, least_speed):\n"
        "    fitting = [\n"
        '        row for row in rows if row["peak_mb"] <= most_mb and row["tokens_per_s"] '
        ">= least_speed\n"
        "    ]\n"
        "    if not fitting:\n"
        '        return "none"\n'
        '    return min(fitting, key=lambda row: row["bits_per_byte"])["model"]',
        why="A budget is a set of limits. What breaks one is out, however good it is. Only then "
        "quality decides, and fewer bits per byte are better.",
    ),
    Question(
        id="05.3",
        task="*Predict, then measure.* `bits_per_byte` reads the text in windows of `context` "
        "tokens. **How many times as many bits** does `course-gpt-4m` need for `heldout` with "
        f"`context={FEW}` as with `context={MANY}`? Predict. Then measure both and divide.",
        start="guess = ...  # a ratio, such as 1.5: write it before you measure\n"
        "measured = ...  # a ratio: code that measures",
        check_answer=_check_context,
        ask="guess, measured",
        hints=(
            f"`bits_per_byte(model, tokenizer, heldout, context={FEW})`, as in section 1. The "
            'model must be that of `helpers.load("course-gpt-4m")`.',
            f"The same with `context={MANY}`. Each takes about a second.",
            f"Divide the bits with {FEW} tokens by those with {MANY}.",
        ),
        code="from helpers import models\n"
        "from helpers.quality import bits_per_byte\n\n"
        'generator = helpers.load("course-gpt-4m")\n'
        'heldout = (models.models_folder() / "heldout.md").read_text(encoding="utf-8")\n\n\n'
        "def surprise(context):\n"
        "    return bits_per_byte(generator.model, generator.tokenizer, heldout, context)\n\n\n"
        "guess = 2\n"
        f"measured = surprise({FEW}) / surprise({MANY})",
        why="Most of what a small model knows about the next token comes from the few before it. "
        "Longer context helps, but each further token by less.",
    ),
)

recap = Recap(
    "05",
    (
        RecapQuestion(
            "Why does each model get a fresh process?",
            ("So that they can run at the same time", "So that no model's peak counts for another",
             "So that the random numbers are the same"),
            1,
            "A process's peak memory never falls: libraries and caches of the first model would "
            "be booked on the second. And one that is killed takes only itself along.",
        ),
        RecapQuestion(
            "Model A has perplexity 20, B has 30, with different tokenizers. Which is better?",
            ("A", "B", "You cannot say"),
            2,
            "Their tokens differ in length. Compare bits per byte on the same text.",
        ),
        RecapQuestion(
            "Two models are both on the frontier. Which do you take?",
            ("The one that fits the budget", "The faster one", "The better one"),
            0,
            "One is faster, the other better: that is no question of measurement. The budget "
            "decides.",
        ),
    ),
)  # fmt: skip

lesson = Lesson("05", questions, recap)
