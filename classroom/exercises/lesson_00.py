"""Exercises of lesson 00: sizes, an error's last line, probabilities of the next token."""

from __future__ import annotations

from typing import Any

from classroom.exercises import checks, reference
from classroom.exercises.catalogue import Lesson
from classroom.exercises.question import Question
from classroom.exercises.recap import Recap, RecapQuestion

PROMPT, BEST = "The server", 10
PARAMETERS, BYTES_EACH = 7e9, 2


def _check_size(answer: Any) -> str:
    gigabytes = PARAMETERS * BYTES_EACH / 1e9
    mistakes = [
        (PARAMETERS * 4 / 1e9, "That is four bytes a parameter, as in section 3; here two."),
        (PARAMETERS / 1e9, "That is one byte a parameter, or their number; here two bytes each."),
        (
            PARAMETERS * BYTES_EACH / 2**30,
            "That is GiB, steps of 1024. A GB is 10⁹ bytes, as on disks and in this course.",
        ),
        (PARAMETERS * 16 / 1e9, "That is gigabits: two bytes are 16 bits, but bytes are asked."),
    ]
    checks.expect(checks.number(answer, "GB"), gigabytes, "GB", mistakes)
    return "Parameters times bytes each: this is the first sum for any model, before a download."


def _check_range(answer: Any) -> str:
    from helpers.settings import parameter_ranges

    allowed = parameter_ranges()["temperature"]
    low, high = (checks.number(part) for part in answer)
    if low > high:
        raise checks.Wrong("The lowest comes first: swap the two values.")
    if high == 3:
        raise checks.Wrong("3 is what was refused. Which largest value does the message allow?")
    if low != allowed.minimum:
        raise checks.Wrong(f"{low:g} is not the lowest. Read the end of the message: “from …”.")
    if high != allowed.maximum:
        raise checks.Wrong(f"{high:g} is not the highest. Read the end of the message: “to …”.")
    return "Every error of the course ends with what is allowed."


def _check_share(answer: Any) -> str:
    guess = checks.number(answer[0], "percent")
    measured = checks.number(answer[1], "percent")
    table = reference.generator().next_token_probabilities(PROMPT, top=BEST, temperature=1)
    before = 100 * table["before"]
    usual = reference.generator().next_token_probabilities(PROMPT, top=BEST)
    mistakes = [
        (before.sum() / 100, "That is the share from 0 to 1. In percent it is 100 times as much."),
        (before.max(), "That is the best candidate alone. Add up all ten."),
        (before[:5].sum(), "That is the sum of five candidates. `top=10` gives ten."),
        (before.mean(), "That is the mean of the ten. Their sum is asked for."),
        (100 * table["after"].sum(), "Take the column `before`: what the model says by itself."),
        (100 * usual["after"].sum(), "Take the column `before`: what the model says by itself."),
        (100, "All tokens together have 100 percent, the ten best have less."),
    ]
    checks.expect(measured, before.sum(), "percent", mistakes, tolerance=0.02)
    if not 0 < guess <= 100:
        raise checks.Wrong("Measured right. But the prediction must lie between 0 and 100 percent.")
    return f"{checks.compare_guess(guess, measured, 'percent')} All other tokens share the rest."


questions = (
    Question(
        id="00.1",
        task="A model has 7 billion parameters. Its file holds each of them in **two** bytes. "
        "How many GB (10⁹ bytes) is the file?",
        start="answer = ...  # GB, a number",
        check_answer=_check_size,
        hints=(
            "Section 3 computes the sizes of the hub's models: parameters times bytes each.",
            "7 billion is `7e9` in Python. Divide the bytes by `1e9`.",
        ),
        code="answer = 7e9 * 2 / 1e9",
        why="Every parameter takes its bytes, and little else is in the file. With four bytes "
        "each, as in section 3, it would be twice as much.",
    ),
    Question(
        id="00.2",
        task="Let `generator` write with `temperature=3` and read the error's last line. "
        "Between which two values must a temperature lie?",
        start="lowest = ...\nhighest = ...",
        check_answer=_check_range,
        ask="lowest, highest",
        hints=(
            "In a new cell: `generator.generate(PROMPT, temperature=3)`.",
            "The last line names the parameter, your value, and then “from … to …”.",
        ),
        code="try:\n"
        '    helpers.load("course-gpt-4m").generate("Hello", temperature=3)\n'
        "except helpers.ParameterError as error:\n"
        "    print(error)\n"
        "lowest, highest = 0, 2",
        why="The range stands at the end of the message. A program can read it from "
        "`error.allowed`.",
    ),
    Question(
        id="00.3",
        task=f"*Predict, then measure.* After `{PROMPT}`, how many **percent** of the probability "
        f"do the {BEST} best candidates of `course-gpt-4m` hold together? Predict first. Then "
        "measure as in section 3: `next_token_probabilities` with `temperature=1`, column "
        "`before`.",
        start="guess = ...  # percent: write it before you measure\n"
        "measured = ...  # percent: code that measures",
        check_answer=_check_share,
        ask="guess, measured",
        hints=(
            f'`generator.next_token_probabilities("{PROMPT}", top={BEST}, temperature=1)` '
            "gives a table with ten rows.",
            'A column of a table is `table["before"]`, its sum `table["before"].sum()`.',
            "The column holds shares from 0 to 1; multiply by 100.",
        ),
        code='generator = helpers.load("course-gpt-4m")\n'
        f'table = generator.next_token_probabilities("{PROMPT}", top={BEST}, temperature=1)\n'
        "guess = 90\n"
        'measured = 100 * table["before"].sum()',
        why="The vocabulary has thousands of tokens. Each of the others is unlikely, together "
        "they count: what makes sampling lively, and lesson 03's settings useful.",
    ),
)

recap = Recap(
    "00",
    (
        RecapQuestion(
            "A cell gives a strange result after you changed an earlier one. What do you do first?",
            ("Install the course again", "Restart the kernel and run all cells",
             "Delete the cell"),
            1,
            "The kernel remembers every value that any cell ever set, also from cells that you "
            "have changed or deleted since. A restart forgets them.",
        ),
        RecapQuestion(
            "The same prompt, parameters and seed give the same text. Why is that worth having?",
            ("Two runs differ only by what you changed", "The text gets better",
             "The model answers faster"),
            0,
            "You can compare: when one thing changes, the difference comes from it. Without a "
            "seed each run draws other random numbers.",
        ),
        RecapQuestion(
            "A tutorial tells you to set an environment variable. How do you find out whether it "
            "still works?",
            ("Set it: a wrong one gives an error", "Ask for its value with print()",
             "Look it up in the documentation of your version"),
            2,
            "A setting that nothing reads is ignored without a word. The documentation of the "
            "version you have tells.",
        ),
    ),
)  # fmt: skip

lesson = Lesson("00", questions, recap)
