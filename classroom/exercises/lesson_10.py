"""Exercises of lesson 10: pods on a node, cards for a model, replicas for more users."""

from __future__ import annotations

from typing import Any

from classroom.exercises import checks
from classroom.exercises.catalogue import Lesson
from classroom.exercises.question import Question
from classroom.exercises.recap import Recap, RecapQuestion

NODE, SYSTEM, REQUEST, LIMIT = 16, 2, 1, 4  # GiB
PROCESSORS, ASKED = 8, 1  # of the node, of a pod
FIRST = {"users": 100, "requests_per_user_minute": 2, "tokens": 150, "wait_s": 0.5}
REPLICA: dict[str, Any] = {"slots": 4, "seconds_per_token": 0.04}
MORE = 8  # times as many users


def _check_pods(answer: Any) -> str:
    mistakes = [
        (NODE // REQUEST, "Not all 16 GiB are free, and pods ask for processors, too."),
        ((NODE - SYSTEM) // REQUEST, "So many fit by memory. Now the processors."),
        ((NODE - SYSTEM) // LIMIT, "The scheduler counts requests, not limits."),
        (NODE // LIMIT, "The scheduler counts requests, not limits; and 2 GiB are taken."),
        (PROCESSORS + (NODE - SYSTEM), "Do not add: the scarcer of the two decides."),
    ]
    checks.expect(checks.number(answer, "pods"), PROCESSORS // ASKED, "pods", mistakes, 0)
    return "The scarcer resource decides: here the processors, with six GiB of memory left over."


_GIVEN: list[tuple[float, float, float]] = [
    (7, 8, 24), (70, 20, 80), (70, 100, 80), (405, 60, 80), (7, 2, 80), (13, 6, 16),
]  # fmt: skip


def _cards(billion: float, cache_gb: float, card_gb: float) -> int:
    count = 1
    while (2 * billion + cache_gb) / count > 0.9 * card_gb:
        count *= 2
    return count


def _check_cards(calls: Any) -> str:
    def other(weight: float, share: float, cache: float = 1) -> Any:
        def mistaken(billion: float, cache_gb: float, card_gb: float) -> int:
            count = 1
            while (weight * billion + cache * cache_gb) / count > share * card_gb:
                count *= 2
            return count

        return mistaken

    def not_doubled(billion: float, cache_gb: float, card_gb: float) -> int:
        return int(-(-(2 * billion + cache_gb) // (0.9 * card_gb)))

    def cache_whole(billion: float, cache_gb: float, card_gb: float) -> int:
        count = 1
        while count < 4096 and 2 * billion / count + cache_gb > 0.9 * card_gb:
            count *= 2
        return count

    mistakes = [
        (other(1, 0.9), "That is one byte a parameter. In 16 bits there are two."),
        (other(2, 1.0), "This fills a card to its brim. A tenth stays free."),
        (other(2, 0.9, 0), "This forgets the keys and values."),
        (not_doubled, "Right sizes, but heads are shared out by powers of two: 1, 2, 4, 8 …"),
        (cache_whole, "Keys and values are cut, too: each card holds its share of them."),
    ]
    checks.results(calls, _GIVEN, _cards, "cards", mistakes)
    return "The first number of any plan: below it the model does not start at all."


def replicas(times: float = 1, **changes: Any) -> int:
    """Of the plan of question 3, with so many times its users."""
    from classroom.capacity import Demand, Replica, plan

    asked = FIRST | {"users": times * FIRST["users"]} | changes
    return plan(Demand(**asked), Replica(**REPLICA)).replicas


def _check_replicas(answer: Any) -> str:
    guess, measured = checks.number(answer[0], "replicas"), checks.whole(answer[1], "replicas")
    right = replicas(MORE)
    mistakes: list[tuple[float, str]] = [
        (MORE * replicas(), "That is eight times the first plan. Ask for a plan of 800 users."),
        (replicas(), "That is the plan of 100 users. Ask for the one of 800."),
        (replicas(MORE, wait_s=5), "Is `wait_s` still 0.5?"),
    ]
    checks.expect(measured, right, "replicas", mistakes, tolerance=0)
    return (
        f"{checks.compare_guess(guess, measured, 'replicas')} Eight times the first plan would be "
        f"{MORE * replicas()}: many slots share their idle ones, so less has to be kept free."
    )


_DEMAND = ", ".join(f"{name}={value}" for name, value in FIRST.items())
_REPLICA = ", ".join(f"{name}={value}" for name, value in REPLICA.items())

questions = (
    Question(
        id="10.1",
        task=f"A node has {NODE} GiB of memory, {SYSTEM} of them taken by the system, and "
        f"{PROCESSORS} processors free for pods. A pod requests {REQUEST} GiB and {ASKED} "
        f"processor; its memory limit is {LIMIT} GiB. How many **pods** does the scheduler place "
        "there?",
        start="answer = ...  # pods",
        check_answer=_check_pods,
        hints=(
            "Requests decide where a pod is placed; limits decide when it is stopped.",
            "How many fit by memory, how many by processors?",
            "Take the smaller one.",
        ),
        code=f"answer = min(({NODE} - {SYSTEM}) // {REQUEST}, {PROCESSORS} // {ASKED})",
        why="A pod needs all that it requests on one node, so the scarcer resource decides.",
    ),
    Question(
        id="10.2",
        task="Write `cards(billion, cache_gb, card_gb)`: the fewest cards, **a power of two**, "
        "that hold a model of so many billion parameters in 16 bits and its KV cache, cut evenly, "
        "when a tenth of each card stays free.",
        start="def cards(billion, cache_gb, card_gb):\n    return ...",
        check_answer=_check_cards,
        ask="cards",
        inputs=lambda: _GIVEN,
        hints=(
            "Weights take two bytes a parameter: 2 GB a billion.",
            "Begin with one card; double as long as a card's share is above 0.9 of its memory.",
            "A card's share is `(2 * billion + cache_gb) / count`.",
        ),
        code="def cards(billion, cache_gb, card_gb):\n"
        "    count = 1\n"
        "    while (2 * billion + cache_gb) / count > 0.9 * card_gb:\n"
        "        count *= 2\n"
        "    return count",
        why="Tensor parallelism shares out heads, whose number is divisible by powers of two.",
    ),
    Question(
        id="10.3",
        task=f"*Predict, then measure.* `Demand({_DEMAND})` with `Replica({_REPLICA})` needs "
        f"some replicas. How many **replicas** need {MORE * FIRST['users']:.0f} users? Predict "
        "first. Then let `plan` compute it.",
        start="guess = ...  # replicas: write it before you measure\n"
        "measured = ...  # replicas: code that asks for the plan",
        check_answer=_check_replicas,
        ask="guess, measured",
        hints=(
            "`plan(demand, replica).replicas` is the number.",
            "Change `users` alone.",
            "All slots share one queue. Does a large group need as much idle room as eight small "
            "ones?",
        ),
        code="from classroom.capacity import Demand, Replica, plan\n\n"
        f"replica = Replica({_REPLICA})\n"
        f"asked = dict({_DEMAND})\n"
        "guess = 8 * plan(Demand(**asked), replica).replicas\n"
        f'asked["users"] = {MORE * FIRST["users"]:.0f}\n'
        "measured = plan(Demand(**asked), replica).replicas",
        why="Erlang's formula: with more slots, each may be busier before anybody waits as long.",
    ),
)

recap = Recap(
    "10",
    (
        RecapQuestion(
            "Which path belongs in the liveness probe?",
            ("/health, like readiness", "/live, which says that the process answers",
             "/v1/completions, which proves that it works"),
            1,
            "/health says 503 while a pod drains: as liveness it would kill the texts that are "
            "being finished. A generation would wait behind all others.",
        ),
        RecapQuestion(
            "A model does not fit on one card. What helps?",
            ("A second replica", "Tensor or pipeline parallelism", "A larger queue"),
            1,
            "Replicas are whole copies. To cut one model, its layers are split (tensor) or shared "
            "out (pipeline).",
        ),
        RecapQuestion(
            "Why are 100 % busy slots no goal?",
            ("The waiting time grows without end", "The devices wear out",
             "The tokens become worse"),
            0,
            "Requests come at random. Without idle room each burst adds to a queue that never "
            "gets empty.",
        ),
    ),
)  # fmt: skip

lesson = Lesson("10", questions, recap)
