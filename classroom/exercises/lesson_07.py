"""Exercises of lesson 07: perplexity by hand, what a stream holds back, a mask's first tokens."""

from __future__ import annotations

from typing import Any

from classroom.exercises import checks, reference
from classroom.exercises.catalogue import Lesson
from classroom.exercises.question import Question
from classroom.exercises.recap import Recap, RecapQuestion

SHARES = (0.5, 0.25, 0.125, 0.25)
ALLOWED = ("yes", "no", "not sure")


def _check_perplexity(answer: Any) -> str:
    mean = sum(SHARES) / len(SHARES)
    mistakes = [
        (mean, "That is the mean of the probabilities. Perplexity starts from their logarithms."),
        (1 / mean, "That turns the mean of the probabilities round. Take logarithms first."),
        (256, "That is for all tokens together. Perplexity is for one: take the mean."),
        (2, "That is the mean in powers of two: the exponent. Raise 2 to it."),
        (0.25, "That is e to the power of the mean. The mean must be made negative first."),
        (1.3863, "That is the negative mean. Take e to the power of it."),
    ]
    checks.expect(checks.number(answer), 4, "equal choices", mistakes, 0.01)
    return "The model was as unsure as if it chose among four equal tokens each time."


_GIVEN: list[tuple[str, str]] = [
    ("The e", "end"),
    ("The en", "end"),
    ("The cat", "end"),
    ("end of the", "###"),
    ("a##", "###"),
    ("aaa", "aab"),
    ("", "end"),
]


def _sendable(text: str, stop: str) -> str:
    """The text without its longest end that the stop string begins with."""
    keep = max(n for n in range(len(stop)) if text.endswith(stop[:n]))
    return text[: len(text) - keep]


def _check_sendable(calls: Any) -> str:
    mistakes = [
        (lambda text, stop: text, "This holds nothing back. `The e` may go on to `The end`."),
        (
            lambda text, stop: text[: max(0, len(text) - len(stop) + 1)],
            "This always holds back the same number of characters, also where nothing of the stop "
            "string has begun.",
        ),
        (
            lambda text, stop: text[len(_sendable(text, stop)) :],
            "The other way round: this is what must be held back.",
        ),
        (
            lambda text, stop: text[:-1] if text.endswith(stop[0]) else text,
            "This looks at one character only. Two of the stop string may be there already.",
        ),
    ]
    checks.results(calls, _GIVEN, _sendable, "sendable", mistakes)
    return "Only what cannot become the stop string any more may go out."


def _first_tokens() -> int:
    """How many tokens are a beginning of an allowed text."""
    tokenizer = reference.tokenizer()
    pieces = (tokenizer.decode([i]) for i in range(len(tokenizer)))
    return sum(any(text.startswith(piece) for text in ALLOWED) for piece in pieces if piece)


def _check_first(answer: Any) -> str:
    guess, measured = (checks.whole(part, "tokens") for part in answer)
    right = _first_tokens()
    tokenizer = reference.tokenizer()
    starts = {tokenizer(text)["input_ids"][0] for text in ALLOWED}
    mistakes = [
        (len(starts), "That is how the tokenizer would begin. A text can be cut in other ways."),
        (len(ALLOWED), "That counts the texts. Tokens that can begin one of them are asked for."),
        (len(tokenizer), "That is the whole vocabulary. Which tokens begin an allowed text?"),
        (
            len(tokenizer) - right,
            "Those are the tokens that the mask takes away. Count those that stay.",
        ),
    ]
    checks.expect(measured, right, "tokens", mistakes, tolerance=0)
    return (
        f"{checks.compare_guess(guess, measured, 'tokens')} The mask lets every cut of the text "
        "pass, not just the tokenizer's."
    )


questions = (
    Question(
        id="07.1",
        task="A model gave the four tokens of a text the probabilities 0.5, 0.25, 0.125 and 0.25. "
        "What is the text's **perplexity**?",
        start="answer = ...  # a number",
        check_answer=_check_perplexity,
        hints=(
            "Section 3: the mean log-probability, made negative, then e to the power of it.",
            "In powers of two it goes by heart: the logarithms are -1, -2, -3 and -2.",
            "Their mean is -2.",
        ),
        code="answer = 2 ** ((1 + 2 + 3 + 2) / 4)",
        why="Any base will do, if the logarithm and the power use the same one.",
    ),
    Question(
        id="07.2",
        task="A stream ends before a stop string. Write `sendable(text, stop)`: gets what is held, "
        "without the whole stop string in it, and returns the part that may go out *now*.",
        start="def sendable(text, stop):\n    return ...",
        check_answer=_check_sendable,
        ask="sendable",
        inputs=lambda: _GIVEN,
        hints=(
            "What may not go out is an end of `text` with which `stop` begins.",
            "`text.endswith(stop[:n])` asks for one length n. Which n can there be?",
            "Take the largest n below `len(stop)`, and cut so many characters off.",
        ),
        code="def sendable(text, stop):\n"
        "    keep = max(n for n in range(len(stop)) if text.endswith(stop[:n]))\n"
        "    return text[: len(text) - keep]",
        why="n = 0 always fits, so there is a largest one; then nothing is held back.",
    ),
    Question(
        id="07.3",
        task="*Predict, then measure.* A mask allows the texts `yes`, `no` and `not sure`. How "
        "many **tokens** of `course-gpt-4m` can come first? Predict first. Then count.",
        start="guess = ...  # tokens: write it before you measure\n"
        "measured = ...  # tokens: code that counts",
        check_answer=_check_first,
        ask="guess, measured",
        hints=(
            "A single letter is a token, too: `y` can begin `yes`.",
            "Section 6 has the vocabulary as texts: `PIECES`. The empty one does not count.",
            "Count the pieces for which one of the texts `.startswith(piece)`.",
        ),
        code='generator = helpers.load("course-gpt-4m")\n'
        "pieces = [generator.decode([i]) for i in range(generator.vocabulary)]\n"
        'texts = ["yes", "no", "not sure"]\n'
        "guess = 3\n"
        "measured = sum(any(t.startswith(p) for t in texts) for p in pieces if p)",
        why="Each token that is a beginning of an allowed text stays: words, parts, letters.",
    ),
)

recap = Recap(
    "07",
    (
        RecapQuestion(
            "A few-shot prompt is 5 points better, the interval goes from -6 to 16. What follows?",
            ("Few-shot is better", "A null result: the shorter prompt will do",
             "Few-shot is worse"),
            1,
            "The interval holds 0, so these items show no difference. The longer prompt costs "
            "tokens for certain.",
        ),
        RecapQuestion(
            "Why must users' text be encoded as text?",
            ("It is shorter so", "Typed special tokens would open turns of the chat",
             "The model refuses it otherwise"),
            1,
            "They would speak in another role. As text they are only "
            "characters. Orders in plain words still reach the model.",
        ),
        RecapQuestion(
            "What does a mask for a JSON schema guarantee?",
            ("The form of the answer", "That the answer is true", "That the answer comes faster"),
            0,
            "Only tokens that lead on to a valid text are left. What stands in the fields is the "
            "model's guess.",
        ),
    ),
)  # fmt: skip

lesson = Lesson("07", questions, recap)
