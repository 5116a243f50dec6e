"""Exercises of lesson 01: a bill, a request that fits, JSON with and without spaces."""

from __future__ import annotations

import json
from typing import Any

from classroom.exercises import checks, reference
from classroom.exercises.catalogue import Lesson
from classroom.exercises.question import Question
from classroom.exercises.recap import Recap, RecapQuestion

REQUESTS, PROMPT_TOKENS, NEW_TOKENS, DAYS = 100_000, 300, 200, 30
READ_PRICE, WRITE_PRICE = 1.0, 4.0  # US dollars for a million tokens
REQUEST = {
    "id": 4711,
    "model": "course-gpt-4m",
    "prompt": "How do I restart a server?",
    "stream": True,
    "limits": {"new_tokens": 40, "seconds": 30},
}


def _dollars(
    read: float = PROMPT_TOKENS,
    written: float = NEW_TOKENS,
    requests: float = REQUESTS,
    days: float = DAYS,
) -> float:
    """US dollars for so many tokens read and written by each request."""
    return (read * READ_PRICE + written * WRITE_PRICE) * requests * days / 1e6


def _check_bill(answer: Any) -> str:
    both = PROMPT_TOKENS + NEW_TOKENS
    mistakes = [
        (_dollars(days=1), "That is one day. The month has 30."),
        (_dollars(written=0), "That is the prompts alone. Written tokens are paid, too."),
        (_dollars(read=0), "That is the written tokens alone. Prompts are paid, too."),
        (
            _dollars(NEW_TOKENS, PROMPT_TOKENS),
            "The prices are swapped: a token that is written costs more than one that is read.",
        ),
        (_dollars(both, 0), "That takes the price of reading for all tokens."),
        (_dollars(0, both), "That takes the price of writing for all tokens."),
        (_dollars() * 1e6, "The price is for a million tokens, not for one."),
        (_dollars(requests=1), "That is one request a day, not 100,000."),
        (_dollars(days=365 / 12), "Close: take a month of 30 days."),
        (_dollars(days=31), "That is a month of 31 days. Take 30."),
    ]
    checks.expect(checks.number(answer, "dollars"), _dollars(), "dollars", mistakes, 0.001)
    return "Requests × tokens × price, read and written apart: known before a request is sent."


def _texts() -> list[tuple[str, int]]:
    """Requests at the limit and around it; some with few characters, some with many."""
    context, count = reference.context(), reference.count_tokens
    english, japanese = " server", "サーバーを再起動するには"
    near = english * (context * 9 // 10)
    room = context - count(near)
    repeats = 2 + context // count(japanese)
    return [
        ("How do I restart a server?", 40),
        (near, room),
        (near, room + 1),
        (english * (context // 2), 40),
        (japanese * repeats, 1),
        (japanese * (repeats // 2), 40),
        ("A server reads tokens.", context),
    ]


def _fits(text: str, new_tokens: int) -> bool:
    return reference.count_tokens(text) + new_tokens <= reference.context()


def _check_fits(calls: Any) -> str:
    context, count = reference.context(), reference.count_tokens
    mistakes = [
        (
            lambda text, new: len(text) + new <= context,
            "This counts characters. The model is bound by tokens: `generator.count_tokens(text)`.",
        ),
        (
            lambda text, new: len(text.split()) + new <= context,
            "This counts words. Text without spaces would be one word: count tokens.",
        ),
        (
            lambda text, new: len(text.encode()) + new <= context,
            "This counts bytes. The model is bound by tokens: `generator.count_tokens(text)`.",
        ),
        (
            lambda text, new: count(text) + new < context,
            "Off by one: a request that fills the context exactly still fits (`<=`).",
        ),
        (
            lambda text, new: count(text) <= context,
            "This looks at the prompt alone. The new tokens need room in the context, too.",
        ),
        (
            lambda text, new: not _fits(text, new),
            "Upside down: True must mean that the request fits.",
        ),
    ]
    checks.results(calls, _texts(), _fits, "fits", mistakes)
    return (
        "Tokens of the prompt and new ones together, at most the context: a server's first check."
    )


def _check_json(answer: Any) -> str:
    guess, measured = (checks.number(part) for part in answer)
    wide, narrow = json.dumps(REQUEST, indent=4), json.dumps(REQUEST, separators=(",", ":"))
    usual, count = json.dumps(REQUEST), reference.count_tokens
    mistakes = [
        (len(wide) / len(narrow), "That is the ratio of characters, not of tokens."),
        (len(wide) / len(usual), "That is the ratio of characters, not of tokens."),
        (count(wide) / count(usual), "`json.dumps` alone leaves spaces: pass `separators`."),
        (count(narrow) / count(wide), "Upside down: the indented text over the narrow one."),
        (count(wide) - count(narrow), "That is the difference. Divide one by the other."),
        (count(wide), "That is the count of the indented text. Divide it by the other count."),
        (count(wide) / count(narrow) - 1, "That is how much *more*. The ratio is 1 larger."),
        (100 * count(wide) / count(narrow), "That is in percent. Asked for: how many times."),
    ]
    right = count(wide) / count(narrow)
    checks.expect(measured, right, "times as many tokens", mistakes, tolerance=0.01)
    return (
        f"{checks.compare_ratio(guess, measured)} Spaces that only please the eye are paid for "
        "like words."
    )


questions = (
    Question(
        id="01.1",
        task="Your service gets 100,000 requests a day, each of 300 prompt and 200 new tokens. "
        "A million tokens cost 1 dollar to read and 4 dollars to write. How many **dollars** is a "
        "month of 30 days?",
        start="answer = ...  # dollars, a number",
        check_answer=_check_bill,
        hints=(
            "What does one request cost: 300 tokens at one price, 200 at the other?",
            "Multiply by the requests of a day and by the days.",
            "Both prices are for a million tokens: divide by `1e6`.",
        ),
        code="request = (300 * 1.0 + 200 * 4.0) / 1e6  # dollars\nanswer = request * 100_000 * 30",
        why="Reading costs 0.0003 dollars a request, writing 0.0008: the shorter part is the "
        "larger bill. So a limit on new tokens saves more than a shorter prompt.",
    ),
    Question(
        id="01.2",
        task="Write `fits(text, new_tokens)`: True if a request with this prompt and so many new "
        "tokens fits into the context of `generator` (`course-gpt-4m`), else False.",
        start="def fits(text, new_tokens):\n    return ...",
        check_answer=_check_fits,
        ask="fits",
        inputs=_texts,
        hints=(
            "`generator.count_tokens(text)` counts; `generator.context` is the limit.",
            "Prompt and new tokens share the context: add them up.",
            "What if the sum is exactly the context? Section 4: it is the most that the model "
            "can hold.",
        ),
        code='generator = helpers.load("course-gpt-4m")\n\n\n'
        "def fits(text, new_tokens):\n"
        "    return generator.count_tokens(text) + new_tokens <= generator.context",
        why="Characters and words would only be estimates, and bad ones for other languages. "
        "The model's own tokenizer tells before anything is computed.",
    ),
    Question(
        id="01.3",
        task="*Predict, then measure.* `lesson_01.REQUEST` is a request as a dictionary. How many "
        "**times as many tokens** does it take as `json.dumps(…, indent=4)` than as "
        '`json.dumps(…, separators=(",", ":"))`, without any space between its parts?',
        start="guess = ...  # a ratio, such as 1.2: write it before you measure\n"
        "measured = ...  # a ratio: code that measures",
        check_answer=_check_json,
        ask="guess, measured",
        hints=(
            "`import json`, then print both texts and look.",
            "Count the tokens of each text with `generator.count_tokens`.",
            "Divide the count of the indented text by that of the narrow one.",
        ),
        code="import json\n\n"
        'generator = helpers.load("course-gpt-4m")\n'
        "wide = json.dumps(lesson_01.REQUEST, indent=4)\n"
        'narrow = json.dumps(lesson_01.REQUEST, separators=(",", ":"))\n'
        "guess = 1.2\n"
        "measured = generator.count_tokens(wide) / generator.count_tokens(narrow)",
        why="Every line break and its spaces become tokens of their own. JSON that only machines "
        "read should have none of them.",
    ),
)

recap = Recap(
    "01",
    (
        RecapQuestion(
            "Why can byte-level BPE write any text, even one it was never trained on?",
            ("Its vocabulary holds all words", "Unknown words become one unknown-token",
             "All 256 bytes are in the vocabulary"),
            2,
            "Every text is bytes. What no merge joins stays as single bytes: more tokens, but "
            "nothing is lost.",
        ),
        RecapQuestion(
            "Somebody doubles the vocabulary. What gets better, what gets worse?",
            ("Fewer tokens, but a larger embedding", "More tokens, but a smaller embedding",
             "Fewer tokens, and nothing gets worse"),
            0,
            "Texts need fewer tokens (never more), so they take less time and context. The "
            "embedding doubles, and each further merge helps less.",
        ),
        RecapQuestion(
            "You know a request's token counts. What can you tell before running it?",
            ("Nothing: it must run first", "Whether it fits, its KV cache, its price",
             "What the model will answer"),
            1,
            "Context, KV cache and price follow from the counts; so does about how long it "
            "writes, given the speed.",
        ),
    ),
)  # fmt: skip

lesson = Lesson("01", questions, recap)
