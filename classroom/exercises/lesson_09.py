"""Exercises of lesson 09: Little's law, a cache that does not lie, a limit of tokens."""

from __future__ import annotations

from itertools import product
from typing import Any

from classroom.exercises import checks
from classroom.exercises.catalogue import Lesson
from classroom.exercises.question import Question
from classroom.exercises.recap import Recap, RecapQuestion

RATE, SECONDS, SPARE = 12, 1.5, 0.75  # requests a second, seconds each, use that is planned for
NEEDED = 24  # slots: 12 × 1.5 / 0.75
LIMIT, NEW, SENT = 100, 20, 8  # tokens a minute, new tokens of a request, requests
PROMPT = "A server is"


def _check_slots(answer: Any) -> str:
    mistakes: list[tuple[float, str]] = [
        (18, "18 are busy on average, by Little's law. At 75 % use there must be more."),
        (13.5, "Divide by 0.75: three quarters of the slots are busy, and that is 18."),
        (8, "12 / 1.5: but each request *holds* a slot for 1.5 s. Multiply."),
        (6, "12 / 1.5 × 0.75: multiply rate and time, then divide by the use."),
        (16, "16 is upside down somewhere: rate × time, then divided by the use."),
        (9, "12 × 0.75 leaves the 1.5 s out."),
    ]
    checks.expect(checks.number(answer, "slots"), NEEDED, "slots", mistakes)
    return "18 busy slots on average are three quarters of 24."


def _requests() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Pairs: what was answered before, and what is asked now."""
    greedy: dict[str, Any] = {"prompt": PROMPT, "max_length": 30, "temperature": 0}
    seeded: dict[str, Any] = {"prompt": PROMPT, "max_length": 30, "temperature": 0.8, "seed": 1}
    random: dict[str, Any] = {"prompt": PROMPT, "max_length": 30, "temperature": 0.8}
    changes: list[dict[str, Any]] = [
        {},
        {"seed": 2},
        {"top_k": 5},
        {"top_p": 0.5},
        {"max_length": 40},
        {"prompt": "A"},
    ]
    pairs = [(kept, kept | change) for kept, change in product((greedy, seeded), changes)]
    return [*pairs, (random, dict(random)), (random, seeded), (greedy, random)]


def _fixed(request: dict[str, Any]) -> bool:
    return request["temperature"] == 0 or "seed" in request


def _may_answer(kept: dict[str, Any], asked: dict[str, Any]) -> bool:
    return _fixed(asked) and kept == asked


def _check_cache(calls: Any) -> str:
    def named(*names: str) -> Any:
        return lambda kept, asked: all(kept.get(n) == asked.get(n) for n in names)

    mistakes = [
        (
            named("prompt", "max_length", "temperature"),
            "That is the tutorial's key. It forgets `top_k`, `top_p` and `seed`.",
        ),
        (
            named("prompt", "max_length", "temperature", "seed"),
            "`top_k` and `top_p` change the text, too. Compare the whole requests: `==`.",
        ),
        (
            lambda kept, asked: kept == asked,
            "Two equal requests without a seed, at temperature 0.8, want two texts.",
        ),
        (
            lambda kept, asked: _fixed(asked),
            "This looks at one request alone. Is it the same as the one that was answered?",
        ),
        (
            lambda kept, asked: "seed" in asked and kept == asked,
            "At temperature 0 nothing is drawn: here the text is always the same, seed or not.",
        ),
        (
            lambda kept, asked: asked["temperature"] == 0 and kept == asked,
            "With a seed the draw is always the same, at any temperature.",
        ),
    ]
    checks.results(calls, _requests(), _may_answer, "may_answer", mistakes)
    return "The course's cache does the same, and adds the model and its weights to the key."


def _check_limit(answer: Any) -> str:
    guess, measured = checks.number(answer[0], "requests"), checks.whole(answer[1], "requests")
    right = SENT - LIMIT // (3 + NEW)
    mistakes: list[tuple[float, str]] = [
        (0, "None was refused. Was the server started with `tokens_per_minute=100`?"),
        (SENT, "All eight? Count those whose status code is 429."),
        (429, "429 is the status code. How many of the eight answers have it?"),
        (3, "3 are refused where only new tokens count. The prompt's three count as well."),
    ]
    checks.expect(measured, right, "requests", mistakes, tolerance=0)
    if not 0 <= guess <= SENT:
        raise checks.Wrong("Measured right. But the prediction must be from 0 to 8 requests.")
    return (
        f"{checks.compare_guess(guess, measured)} Each costs 3 + {NEW} tokens, so four fit in "
        f"{LIMIT}."
    )


questions = (
    Question(
        id="09.1",
        task=f"{RATE} requests arrive each second, and each holds a slot for {SECONDS} seconds. On "
        f"average {SPARE:.0%} of the slots shall be busy, so that waiting stays short. How many "
        "slots are needed?",
        start="answer = ...  # slots",
        check_answer=_check_slots,
        hints=(
            "Little's law: how many requests hold a slot on average?",
            "λ = 12 a second, W = 1.5 s, so L = λW = 18 busy slots.",
            "These 18 are to be 75 % of all slots: 18 / 0.75.",
        ),
        code=f"busy = {RATE} * {SECONDS}  # L = λW\nanswer = busy / {SPARE}",
        why="Little's law turns a rate and a time into a number of busy slots. The spare quarter "
        "takes up chance: arrivals come in bunches.",
    ),
    Question(
        id="09.2",
        task="Write `may_answer(kept, asked)`: whether the answer that was kept for the request "
        "`kept` may be given to the request `asked`. Both are dictionaries; `temperature` is "
        "always there, `seed`, `top_k` and `top_p` may be. Return True or False.",
        start="def may_answer(kept, asked):\n    return ...",
        check_answer=_check_cache,
        ask="may_answer",
        inputs=_requests,
        hints=(
            "Two conditions: it is the same request, and this server always writes the same text.",
            "`kept == asked` compares all parameters at once.",
            'The text is always the same here at temperature 0, or where `"seed" in asked`.',
        ),
        code="def may_answer(kept, asked):\n"
        '    always_the_same = asked["temperature"] == 0 or "seed" in asked\n'
        "    return always_the_same and kept == asked",
        why="A key that names a few parameters forgets the next one that is added. Comparing "
        "whole requests cannot forget.",
    ),
    Question(
        id="09.3",
        task="*Predict, then measure.* A server of `course-gpt-1m` has `tokens_per_minute=100`. "
        f"{SENT} requests come one after the other: the prompt is `{PROMPT}`, three tokens, and "
        f"each asks for {NEW} new ones. **How many get the status code 429?** Predict. Then start "
        "it, send them with `codes_of`, which is given, and count.",
        start="guess = ...  # requests: write it before you measure\n\n\n"
        "def codes_of(url):\n"
        '    """The status codes of eight requests, one after the other."""\n'
        f'    body = {{"prompt": "{PROMPT}", "max_new_tokens": {NEW}}}\n'
        "    with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:\n"
        f'        return [http.post("/generate", json=body).status_code for _ in range({SENT})]\n'
        "\n\nmeasured = ...  # requests: start the server, call codes_of(its url), count",
        check_answer=_check_limit,
        ask="guess, measured",
        hints=(
            "A request costs its prompt and the most new tokens that it may get. How many fit?",
            '`with ServerProcess("exercise", model="course-gpt-1m", tokens_per_minute=100) as '
            "exercise:` starts it.",
            "`codes = codes_of(exercise.url)` in that block, then `codes.count(429)`.",
        ),
        code="import httpx\n\n"
        "from serving.client import ServerProcess\n\n"
        "guess = 3\n\n\n"
        "def codes_of(url):\n"
        '    """The status codes of eight requests, one after the other."""\n'
        f'    body = {{"prompt": "{PROMPT}", "max_new_tokens": {NEW}}}\n'
        "    with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:\n"
        f'        return [http.post("/generate", json=body).status_code for _ in range({SENT})]\n'
        "\n\n"
        'settings = {"model": "course-gpt-1m", "tokens_per_minute": 100}\n'
        'with ServerProcess("exercise", **settings) as exercise:\n'
        "    codes = codes_of(exercise.url)\n"
        "measured = codes.count(429)",
        why="Nobody knows beforehand how long a text gets, so the most that was asked for is "
        "taken. Asking for fewer tokens is also a way to be refused less.",
    ),
)

recap = Recap(
    "09",
    (
        RecapQuestion(
            "Twice as many clients, the same tokens per second: what has grown?",
            ("The rows a step", "The latency", "Nothing"),
            1,
            "By Little's law L = λW: with λ at its limit, more requests in the system only wait "
            "longer. That is the far side of the knee.",
        ),
        RecapQuestion(
            "Why refuse a request that could have waited?",
            ("A refusal costs no memory", "Queues are unfair",
             "An answer after the user has left helps nobody"),
            2,
            "An endless queue accepts work that nobody waits for any more. A quick 503 with "
            "Retry-After lets the client choose.",
        ),
        RecapQuestion(
            "Which requests may a response cache answer?",
            ("Those whose text never changes on this machine", "Those with the same prompt",
             "Those with a short answer"),
            0,
            "Greedy ones, and those with a seed; and only where every parameter, the model and its "
            "weights are the same.",
        ),
    ),
)  # fmt: skip

lesson = Lesson("09", questions, recap)
