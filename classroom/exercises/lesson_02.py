"""Exercises of lesson 02: limits, tokens through the model, eight texts at once."""

from __future__ import annotations

from typing import Any

from classroom.exercises import checks, reference
from classroom.exercises.catalogue import Lesson
from classroom.exercises.question import Question
from classroom.exercises.recap import Recap, RecapQuestion

PROMPT_TOKENS, LIMIT = 30, 50
TEXTS, EACH = 8, 40
SLOWEST = 20  # seconds for one text; more must be milliseconds
LEAST_RATIO, MOST_RATIO = 0.7, 24.0  # eight texts over one; clocks and busy machines vary


def _check_limits(answer: Any) -> str:
    from helpers.settings import GenerationSettings

    def room(**limit: int) -> int:
        settings = GenerationSettings(**limit)
        return settings.new_tokens(PROMPT_TOKENS, reference.context())

    with_length, with_new = (checks.whole(part, "tokens") for part in answer)
    by_length, by_new = room(max_length=LIMIT), room(max_new_tokens=LIMIT)
    if (with_length, with_new) == (by_new, by_length):
        raise checks.Wrong("The other way round: which of the two counts the prompt as well?")
    whole = PROMPT_TOKENS + LIMIT
    for given, name, expected, mistakes in (
        (
            with_length,
            "`max_length`",
            by_length,
            [
                (LIMIT, f"{LIMIT} is prompt and new tokens together."),
                (whole, "The prompt is part of the limit: it is taken away, not added."),
            ],
        ),
        (
            with_new,
            "`max_new_tokens`",
            by_new,
            [
                (by_length, "this limit does not count the prompt."),
                (whole, "that is prompt and new tokens together; new ones are asked for."),
            ],
        ),
    ):
        try:
            checks.expect(given, expected, "tokens", mistakes, tolerance=0)
        except checks.Wrong as error:
            raise checks.Wrong(f"{name}: {error}") from None
    return "With `max_length`, a longer prompt leaves less room; with `max_new_tokens` it does not."


_PASSED = [(100, 20, True), (100, 20, False), (5, 1, True), (5, 1, False), (7, 64, False)]


def _passed(prompt: int, new: int, cache: bool) -> int:
    """The last new token is never sent: nothing is asked after it."""
    return prompt + new - 1 if cache else sum(prompt + step for step in range(new))


def _check_passed(calls: Any) -> str:
    mistakes = [
        (
            lambda prompt, new, cache: _passed(prompt, new, not cache),
            "The other way round: the cache makes it *fewer* tokens.",
        ),
        (
            lambda prompt, new, cache: prompt + new if cache else _passed(prompt, new, cache),
            "With the cache, off by one: nothing is asked after the last token, so it is not sent.",
        ),
        (
            lambda prompt, new, cache: (
                prompt + new if cache else sum(prompt + step for step in range(1, new + 1))
            ),
            "Off by one: the first pass reads the prompt alone, and the last new token is never "
            "sent.",
        ),
        (
            lambda prompt, new, cache: prompt + new - 1 if cache else prompt * new,
            "Without the cache, the text grows: every pass reads the new tokens so far as well.",
        ),
        (
            lambda prompt, new, cache: prompt + new if cache else prompt * new,
            "Without the cache, the text grows: every pass reads the new tokens so far as well.",
        ),
        (
            lambda prompt, new, cache: _passed(prompt, new, True),
            "This takes no notice of `cache`. Without it, every pass reads everything again.",
        ),
        (
            lambda prompt, new, cache: _passed(prompt, new, False),
            "This takes no notice of `cache`. With it, a pass after the first reads one token.",
        ),
    ]
    checks.results(calls, _PASSED, _passed, "passed", mistakes)
    return "With the cache the work grows with the length, without it with its square."


def _check_batch(answer: Any) -> str:
    guess = checks.number(answer[0])
    one, eight = (checks.number(part, "seconds") for part in answer[1:])
    if one <= 0 or eight <= 0:
        raise checks.Wrong("A time is above 0: take the end of the clock minus its start.")
    if one > SLOWEST:
        raise checks.Wrong(f"{one:g} s for {EACH} tokens? That looks like milliseconds.")
    if one < 0.001:
        raise checks.Wrong(f"{one:g} s is too short for {EACH} tokens. Was the text written?")
    if one == eight:
        raise checks.Wrong("Both times are the same to the last digit: was one measured twice?")
    ratio = eight / one
    if ratio < LEAST_RATIO:
        raise checks.Wrong(
            "Eight texts in less time than one? Are the two swapped, or did the first call pay "
            "for loading? Write once before you measure."
        )
    if ratio > MOST_RATIO:
        raise checks.Wrong(
            f"{ratio:.0f} times as long is more than eight texts one after the other. Give both "
            f"texts {EACH} tokens, and measure again when the machine is idle."
        )
    if guess <= 0:
        raise checks.Wrong("Measured right. But the prediction, a ratio, must be above 0.")
    return (
        f"{checks.compare_guess(guess, ratio, 'times as long')} The rows of a batch share every "
        "pass: eight texts for less than eight times the time."
        if ratio < TEXTS
        else f"{checks.compare_guess(guess, ratio, 'times as long')} That is no gain from the "
        "batch: this machine was busy just now. On an idle one there is a gain."
    )


questions = (
    Question(
        id="02.1",
        task="A prompt has 30 tokens. At most how many **new** tokens can there be with "
        "`max_length=50`, and how many with `max_new_tokens=50`?",
        start="with_length = ...\nwith_new = ...",
        check_answer=_check_limits,
        ask="with_length, with_new",
        hints=(
            "The table of section 3 shows both limits with a short and a long prompt.",
            "One of them counts prompt + new tokens, the other only the new ones.",
        ),
        code="with_length = 50 - 30\nwith_new = 50",
        why="`max_length` bounds the whole text. With a prompt of 60 tokens nothing would be "
        "left, and the helper refuses.",
    ),
    Question(
        id="02.2",
        task="Write `passed(prompt, new, cache)`: how many tokens go through the model in all "
        "passes together, when it writes `new` tokens after `prompt` tokens, with the KV cache "
        "(`cache=True`) or without.",
        start="def passed(prompt, new, cache):\n    return ...",
        check_answer=_check_passed,
        ask="passed",
        inputs=lambda: _PASSED,
        hints=(
            "The table of section 4 lists the tokens of each pass, for 5 new tokens. Add up its "
            "rows.",
            "The first pass reads the prompt and gives the first new token. With the cache each "
            "further pass reads one token.",
            "Without the cache: prompt, prompt + 1, prompt + 2, …: as many numbers as new tokens.",
        ),
        code="def passed(prompt, new, cache):\n"
        "    if cache:\n"
        "        return prompt + (new - 1)  # the last token is not sent\n"
        "    return sum(prompt + step for step in range(new))",
        why="There are `new` passes. With the cache the first one reads the prompt, each other "
        "one token. Without it pass number n reads the prompt and n − 1 new tokens.",
    ),
    Question(
        id="02.3",
        task="*Predict, then measure.* How many times as long as one text do **eight texts at "
        "once** take (`num_return_sequences=8`)? Predict. Then time `generator.pipeline(PROMPT, "
        "do_sample=True, min_new_tokens=40, max_new_tokens=40, …)` for one and for eight.",
        start="guess = ...  # how many times as long: write it before you measure\n"
        "one = ...  # seconds: code that measures\n"
        "eight = ...  # seconds",
        check_answer=_check_batch,
        ask="guess, one, eight",
        hints=(
            "`start = perf_counter()` before the call; `perf_counter() - start` after it are the "
            "seconds.",
            "Make a function `seconds(texts)` of it, so that both are measured alike.",
            "Call it once before you measure: the first call pays for allocations.",
        ),
        code="from time import perf_counter\n\n"
        'generator = helpers.load("course-gpt-4m")\n\n\n'
        "def seconds(texts):\n"
        '    options = {"min_new_tokens": 40, "max_new_tokens": 40, "do_sample": True}\n'
        "    start = perf_counter()\n"
        '    generator.pipeline("Machine learning is", num_return_sequences=texts, **options)\n'
        "    return perf_counter() - start\n\n\n"
        "guess = 8\n"
        "seconds(1)  # not counted: the first call pays for allocations\n"
        "one = min(seconds(1) for _ in range(3))\n"
        "eight = min(seconds(8) for _ in range(3))",
        why="A decode pass has a fixed cost: every weight is fetched once, whatever the number of "
        "rows. Eight rows share it. Servers live on this (lesson 08).",
    ),
)

recap = Recap(
    "02",
    (
        RecapQuestion(
            "What happens between two tokens of an answer?",
            ("The tokenizer guesses the next word", "The model writes the whole text again",
             "One forward pass, and one choice"),
            2,
            "A pass gives a logit for every token, softmax makes probabilities of them, one token "
            "is chosen and appended. Then the loop begins again.",
        ),
        RecapQuestion(
            "Why does writing a token take longer than reading one?",
            ("Each written token needs a pass of its own", "Written tokens are longer",
             "Sampling takes most of the time"),
            0,
            "All tokens of a prompt share one pass. Written tokens cannot: each needs the one "
            "before.",
        ),
        RecapQuestion(
            "What does the KV cache save, and what does it cost?",
            ("It saves memory and costs time", "It saves reading again and costs memory",
             "It saves both, and makes worse text"),
            1,
            "Earlier tokens are not read again at every step. Their keys and values take memory, "
            "for each token and layer.",
        ),
    ),
)  # fmt: skip

lesson = Lesson("02", questions, recap)
