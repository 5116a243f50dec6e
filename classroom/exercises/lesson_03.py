"""Exercises of lesson 03: a cut by hand, temperature without logits, top-p's tail, a choice."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from classroom.exercises import checks, reference
from classroom.exercises.catalogue import Lesson
from classroom.exercises.question import Question
from classroom.exercises.recap import Recap, RecapQuestion

SHARES, CUT = (50, 20, 15, 10, 5), 80  # percent
PROMPT, TEMPERATURE, TOP_P = "Machine learning is", 1.5, 0.9
JOBS = ("extract", "answer", "story")
CHOICES = ("temperature", "top_k", "top_p", "repetition_penalty", "no_repeat_ngram_size")
PENALTIES = CHOICES[3:]
# What must come next stands in the prompt, so a penalty that spoils copying shows here.
COPY = "Living in the United States and working in the United"
COPIED, LEAST_RIGHT = 6, 0.95  # tokens of a number, and how often all must come right
STORY, STORY_TOKENS, SEEDS = "Once upon a time", 12, range(8)


def _expect(name: str, *given: Any) -> None:
    """As `checks.expect`; the message begins with the name of the value."""
    try:
        checks.expect(*given)
    except checks.Wrong as error:
        raise checks.Wrong(f"`{name}`: {error}") from None


def _check_cut(answer: Any) -> str:
    left, best = checks.number(answer[0], "tokens"), checks.number(answer[1], "percent")
    right = next(n for n in range(1, len(SHARES) + 1) if sum(SHARES[:n]) >= CUT)
    kept, largest = sum(SHARES[:right]), SHARES[0]
    expected = 100 * largest / kept
    if best == right and checks.equal(left, expected, 0.01):
        raise checks.Wrong("The other way round: the number of tokens comes first.")
    too_few = sum(SHARES[: right - 1])
    mistakes: checks.Mistakes = [
        (right - 1, f"these reach only {too_few} %, not {CUT} %."),
        (right + 1, f"that is more than needed: {right} of them reach {CUT} % already."),
        (len(SHARES), "that is all of them; a cut takes the least probable ones away."),
        (kept, "that is what they hold together, in percent. Count them."),
    ]
    _expect("left", checks.whole(left, "tokens"), right, "tokens", mistakes, 0)
    mistakes = [
        (largest, "that is before the cut. What was cut off is shared among the rest."),
        (
            100 * largest / CUT,
            f"the tokens that are left hold {kept} %, not {CUT} %: divide by that.",
        ),
        (expected / 100, "that is a share from 0 to 1. In percent it is 100 times as much."),
        (
            largest + (100 - kept) / right,
            "the rest is not shared equally: each gains in proportion to what it has.",
        ),
        (largest + 100 - kept, "the best token does not get the whole rest."),
        (kept, "that is what the tokens that are left held together before."),
    ]
    _expect("best", best, expected, "percent", mistakes, 0.01)
    return "The cut keeps the smallest set that reaches p, then makes it add up to 100 % again."


_GIVEN: list[tuple[list[float], float]] = [
    ([0.5, 0.3, 0.2], 0.5),
    ([0.5, 0.3, 0.2], 2.0),
    ([0.9, 0.06, 0.04], 1.5),
    ([0.25, 0.25, 0.25, 0.25], 0.7),
    ([0.6, 0.3, 0.1], 1.0),
]


def _shared(weights: list[float]) -> list[float]:
    """Weights made to add up to 1."""
    return [round(weight / sum(weights), 6) for weight in weights]


def _heated(probabilities: list[float], temperature: float) -> list[float]:
    """Dividing a logarithm is taking a power: p ** (1 / T), made to add up to 1."""
    return _shared([p ** (1 / temperature) for p in probabilities])


def _alike(got: Any, wanted: list[float]) -> bool:
    """Whether two rows of numbers agree, but for rounding; a row of one row counts as a row."""
    if isinstance(got, list) and len(got) == 1 and isinstance(got[0], list):
        got = got[0]
    if not isinstance(got, list) or len(got) != len(wanted):
        return False
    return all(
        isinstance(a, int | float)
        and not isinstance(a, bool)
        and math.isclose(a, b, rel_tol=0.005, abs_tol=0.002)
        for a, b in zip(got, wanted, strict=True)
    )


def _check_heated(calls: Any) -> str:
    mistakes = [
        (
            lambda p, t: [each ** (1 / t) for each in p],
            "The results must add up to 1: divide each by the sum of all.",
        ),
        (
            lambda p, t: _shared([each**t for each in p]),
            "The other way round: temperature *divides* the logits. Above 1 it must flatten.",
        ),
        (
            lambda p, t: _shared([math.exp(each / t) for each in p]),
            "Softmax wants logits. These are probabilities: take their logarithm first.",
        ),
        (
            lambda p, t: [math.log(each) / t for each in p],
            "These are logits still. Softmax makes probabilities of them.",
        ),
        (
            lambda p, t: [each / t for each in p],
            "This divides the probabilities. Temperature divides the logits, their logarithms.",
        ),
        (
            lambda p, t: p,
            "This leaves the probabilities as they were. Divide their *logarithms*, then softmax.",
        ),
        (
            lambda p, t: [100 * each for each in _heated(p, t)],
            "These are percent. Probabilities go from 0 to 1, as those that are given.",
        ),
    ]
    checks.results(calls, _GIVEN, _heated, "heated", mistakes, _alike)
    return (
        "The logarithms of probabilities are logits, but for a constant, and softmax does not "
        "see a constant."
    )


def _left(temperature: float = TEMPERATURE, top_k: int = 0, top_p: float = TOP_P) -> int:
    """How many tokens can be drawn after `PROMPT`."""
    settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    after = reference.generator().next_token_distributions(PROMPT, **settings)[1]
    return int((after > 0).sum())


def _check_left(answer: Any) -> str:
    from helpers.settings import GenerationSettings

    guess, measured = (checks.number(part, "tokens") for part in answer)
    everything = len(reference.tokenizer())
    usual = GenerationSettings().top_k
    right = _left()
    mistakes = [
        (everything, "That is the whole vocabulary. Count the probabilities above 0 *after*."),
        (everything - right, "That is how many are cut off. Those that are left are asked for."),
        (
            _left(temperature=1),
            "That is at temperature 1. At another one, top-p leaves another number.",
        ),
        (
            _left(top_k=usual),
            f"Top-k is still on and leaves {usual} at most: switch it off with `top_k=0`.",
        ),
        (usual, f"Top-k is still on and leaves {usual} at most: switch it off with `top_k=0`."),
        (right / everything, "That is their share of the vocabulary. Their number is asked for."),
        (1, "That looks like a sum of probabilities. Count those above 0: `(after > 0).sum()`."),
    ]
    checks.expect(measured, right, "tokens", mistakes, tolerance=0.02)
    if not 1 <= guess <= everything:
        raise checks.Wrong(
            f"Measured right. But the prediction must lie between 1 and {everything:,} tokens, "
            "the whole vocabulary."
        )
    cool = _left(temperature=1)
    return (
        f"{checks.compare_guess(guess, measured, 'tokens')} At temperature 1 it is {cool:,}: "
        "a higher temperature fills the tail, and top-p counts it in."
    )


def _copied(choice: dict[str, Any]) -> float:
    """How often a number of `COPIED` tokens would be copied right with these parameters."""
    before, after = reference.generator().next_token_distributions(COPY, **choice)
    return float(after[before.argmax()]) ** COPIED


@cache
def _stories(choice: tuple[tuple[str, Any], ...]) -> tuple[tuple[int, ...], ...]:
    """The token ids of one story a seed."""
    write = reference.generator().generate
    texts = (write(STORY, max_new_tokens=STORY_TOKENS, seed=s, **dict(choice)) for s in SEEDS)
    return tuple(tuple(text.new_ids[0]) for text in texts)


def _parameters(job: str, given: Any) -> dict[str, Any]:
    """One job's parameters, or `Wrong`."""
    from helpers.settings import GenerationSettings

    if not isinstance(given, dict):
        raise checks.Wrong(f'`{job}`: give a dictionary of parameters, as `{{"temperature": 0}}`.')
    if others := sorted(set(given) - set(CHOICES)):
        raise checks.Wrong(f"`{job}`: {others[0]!r} is not to be chosen here, only {CHOICES}.")
    try:
        GenerationSettings(**given)
    except ValueError as error:
        raise checks.Wrong(f"`{job}`: {error}.") from None
    return given


def _check_facts(job: str, choice: dict[str, Any]) -> None:
    """A number must be copied, a fact taken; both want the most probable token."""
    plain = _copied({name: value for name, value in choice.items() if name not in PENALTIES})
    if plain < LEAST_RIGHT:
        raise checks.Wrong(
            f"`{job}`: at this temperature, {COPIED} sure tokens in a row come right in only "
            f"{plain:.0%} of the tries. There is one right answer: take the best token."
        )
    if job == "extract" and (penalised := _copied(choice)) < LEAST_RIGHT:
        raise checks.Wrong(
            f"`extract`: the number stands in the prompt, and the penalty forbids to repeat it: "
            f"copied right in {penalised:.0%} of the tries. Leave penalties out."
        )


def _check_choice(answer: Any) -> str:
    choice, first = answer
    if not isinstance(choice, dict) or set(choice) != set(JOBS):
        raise checks.Wrong(f"`choice` is a dictionary with the jobs {', '.join(JOBS)}.")
    for job in JOBS:
        _parameters(job, choice[job])
    for job in JOBS[:2]:
        _check_facts(job, choice[job])
    stories = _stories(tuple(sorted(choice["story"].items())))
    if len(set(stories)) < len(stories):
        raise checks.Wrong(
            f"`story`: {len(stories)} tries gave {len(set(stories))} different stories. All must "
            "differ: sample, at a higher temperature."
        )
    after = reference.generator().next_token_distributions(STORY, **choice["story"])[1]
    if bool((after > 0).all()):
        raise checks.Wrong(
            "`story`: every token of the vocabulary can be drawn, nonsense too. Cut off the tail "
            "with top-k or top-p."
        )
    right = len({ids[0] for ids in stories})
    mistakes = [
        (len(stories), "That is how many stories differ. Count their different *first tokens*."),
        (
            len({i for ids in stories for i in ids}),
            "That counts all their tokens. Take the first of each story: `new_ids[0][0]`.",
        ),
    ]
    checks.expect(checks.whole(first, "tokens"), right, "tokens", mistakes, tolerance=0)
    return (
        f"Facts take the best token and copy freely; stories begin in {right} ways. A number "
        "defends the choice, not a feeling."
    )


questions = (
    Question(
        id="03.1",
        task="Only five tokens can come next, with probabilities of 50, 20, 15, 10 and 5 %. How "
        "many of them does `top_p=0.8` leave, and how many **percent** has the best one then?",
        start="left = ...  # tokens\nbest = ...  # percent",
        check_answer=_check_cut,
        ask="left, best",
        hints=(
            "Add up from the best on. Stop as soon as 80 % are reached.",
            "What do the tokens that are left hold together? They must hold 100 % again.",
            "All grow by the same factor: divide by what they held together.",
        ),
        code="left = 3  # 50 + 20 = 70 is not enough, with 15 it is\n"
        "best = 100 * 50 / (50 + 20 + 15)",
        why="The smallest set that reaches 80 % holds 85 %. Divided by 0.85, its probabilities "
        "add up to 1 again.",
    ),
    Question(
        id="03.2",
        task="An API shows probabilities, and no logits. Write `heated(probabilities, "
        "temperature)`: gets a list of all probabilities at temperature 1, each above 0, and "
        "returns the list of those at the given temperature.",
        start="def heated(probabilities, temperature):\n    return ...",
        check_answer=_check_heated,
        ask="heated",
        inputs=lambda: _GIVEN,
        hints=(
            "Softmax takes e to the power of each logit. What undoes that?",
            "The logarithms of the probabilities serve as logits. Section 2: what does "
            "temperature do to logits?",
            "Dividing a logarithm is taking a power: `p ** (1 / temperature)`. Then make the "
            "results add up to 1.",
        ),
        code="def heated(probabilities, temperature):\n"
        "    weights = [p ** (1 / temperature) for p in probabilities]\n"
        "    return [weight / sum(weights) for weight in weights]",
        why="log p differs from the logit by one constant for all tokens, and softmax does not "
        "see it. So a distribution can be heated or cooled without the model.",
    ),
    Question(
        id="03.3",
        task=f"*Predict, then measure.* After `{PROMPT}`, how many **tokens** of "
        f"`course-gpt-4m` does `top_p={TOP_P}` leave at temperature {TEMPERATURE}? Predict "
        "first. Then count as in section 3, with `top_k=0`.",
        start="guess = ...  # tokens: write it before you measure\n"
        "measured = ...  # tokens: code that counts",
        check_answer=_check_left,
        ask="guess, measured",
        hints=(
            "`generator.next_token_distributions(…)` takes a prompt and parameters, and gives "
            "all probabilities before and after.",
            f"Pass `temperature={TEMPERATURE}, top_k=0, top_p={TOP_P}`; `[1]` takes those after.",
            "`after > 0` is true for each token that can be drawn; `.sum()` counts.",
        ),
        code='generator = helpers.load("course-gpt-4m")\n'
        f'settings = {{"temperature": {TEMPERATURE}, "top_k": 0, "top_p": {TOP_P}}}\n'
        f'after = generator.next_token_distributions("{PROMPT}", **settings)[1]\n'
        "guess = 100\n"
        "measured = int((after > 0).sum())",
        why="Temperature acts first. It moves probability from the favourites to the tail, so "
        "many more tokens are needed to reach the same share.",
    ),
    Question(
        id="03.4",
        task="*Choose, and defend with a number.* For each job of section 6 give the parameters "
        'that you would ship, as in `{"temperature": 0}`. Stories must all differ, and must not '
        f"draw from the whole tail. Then count: with yours, `course-gpt-4m` continues `{STORY}` "
        "with the seeds 0 to 7. How many different **first tokens** do the eight stories have?",
        start='choice = {"extract": ..., "answer": ..., "story": ...}\n'
        "first = ...  # different first tokens: code that counts",
        check_answer=_check_choice,
        ask="choice, first",
        hints=(
            "Look at the scores of section 6: which strategy is best at each task?",
            "Extracting copies from the prompt. What does a repetition penalty do to that?",
            f'`generator.generate("{STORY}", max_new_tokens={STORY_TOKENS}, seed=0, …)` writes '
            "one story; `.new_ids[0][0]` is its first token. A set counts different ones.",
        ),
        code='generator = helpers.load("course-gpt-4m")\n'
        "choice = {\n"
        '    "extract": {"temperature": 0},\n'
        '    "answer": {"temperature": 0},\n'
        '    "story": {"temperature": 0.8, "top_p": 0.9},\n'
        "}\n"
        "begun = set()\n"
        f"for seed in range({len(SEEDS)}):\n"
        f'    story = generator.generate("{STORY}", seed=seed, **choice["story"])\n'
        "    begun.add(story.new_ids[0][0])\n"
        "first = len(begun)",
        why="Where one answer is right, chance can only spoil it, and a penalty forbids the copy. "
        "Where many are right, chance makes them differ, and a cut keeps nonsense out.",
    ),
)

recap = Recap(
    "03",
    (
        RecapQuestion(
            'A client wants "deterministic, so temperature 0.1". What do you say?',
            ("Right, 0.1 gives one text", "Take temperature 0, and test it on your server",
             "Take top-p 0.1 as well"),
            1,
            "At 0.1 other tokens still have a chance, and over many requests it is taken. Greedy "
            "repeats a text on one machine; on GPUs the batch can still change it.",
        ),
        RecapQuestion(
            "Why does top-p adapt, and top-k not?",
            ("Top-p keeps a fixed share of probability", "Top-p counts the tokens of the prompt",
             "Top-k is applied after top-p"),
            0,
            "A fixed share is held by few tokens where the model is sure, and by many where it "
            "is not. Top-k keeps a fixed number.",
        ),
        RecapQuestion(
            "Which parameter do you cap first to save money?",
            ("The temperature", "Top-k, so that less is computed", "The length"),
            2,
            "Each token is one more forward pass. The others change one row of logits, a small "
            "part of the work.",
        ),
    ),
)  # fmt: skip

lesson = Lesson("03", questions, recap)
