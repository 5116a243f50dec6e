"""Exercises that answer at once, recaps, and the learner's progress.

In a lesson:

    from classroom.exercises import lesson_01
    q1, q2, q3 = lesson_01.questions

    answer = ...        # the learner replaces the three dots
    q1.check(answer)    # marks at once; unanswered it says so and never raises
    q1.hint()           # the next step at each call
    q1.solution()       # code, and why

    lesson_01.recap.show()   # three questions with radio buttons

A grader that trusts no notebook takes what check() left in a cell's output (`ANSWER_TYPE`) and
marks it again from the installed package:

    judge("01.2", payload["answer"])  ->  Verdict(status="right", message="…")

**Adding a lesson.** `make new-lesson` writes `lesson_NN.py` beside this file; it is found by
its name. It defines `questions` (a tuple of two to four `Question`), `recap` (a `Recap` of three
questions) and `lesson = Lesson("NN", questions, recap)`. Importing it must stay light: expected
values are computed inside the check functions, with `reference.tokenizer()` or
`reference.generator(name)`, never typed, so that they hold for other weights. `python
tools/exercises.py NN` puts the questions into the lesson's notebook, `make sync` the recap's
answers, and `make solutions` writes the notebook of solutions. Give the tests right and wrong
answers of each question in `tests/classroom/exercises/answers_NN.py`.

| module | holds |
|---|---|
| `question` | `Question`, `Verdict`: check, hint, solution |
| `answers` | any answer, or a function's results, as JSON |
| `checks` | what check functions are made of, with messages for the usual mistakes |
| `reference` | the tokenizer and the models that expected values come from |
| `recap` | recap questions and their widget |
| `store` | the progress file |
| `course_map` | `classroom.progress()` and `classroom.forget_progress()` |
| `lesson_00` … | the exercises themselves |
"""

from __future__ import annotations

from classroom.exercises.answers import ANSWER_TYPE
from classroom.exercises.catalogue import Lesson, find, judge, lessons
from classroom.exercises.question import Question, Verdict
from classroom.exercises.recap import Recap, RecapQuestion

__all__ = [
    "ANSWER_TYPE",
    "Lesson",
    "Question",
    "Recap",
    "RecapQuestion",
    "Verdict",
    "find",
    "judge",
    "lessons",
]
