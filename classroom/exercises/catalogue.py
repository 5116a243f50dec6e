"""All lessons with exercises, found by the names of their modules."""

from __future__ import annotations

import importlib
import pkgutil
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from classroom import course
from classroom.exercises.question import Question, Verdict
from classroom.exercises.recap import Recap


@dataclass(frozen=True)
class Lesson:
    """What one lesson asks.

    Attributes:
        number: "01".
        questions: two to four, from easy to hard.
        recap: three questions to look back.
    """

    number: str
    questions: tuple[Question, ...]
    recap: Recap

    @property
    def title(self) -> str:
        """As in the notebook's heading."""
        return course.lesson(self.number).title


@cache
def lessons() -> dict[str, Lesson]:
    """Number → lesson, in order: every module `lesson_NN` of this package."""
    import classroom.exercises as package

    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    found = [
        importlib.import_module(f"classroom.exercises.{name}").lesson
        for name in names
        if re.fullmatch(r"lesson_\d\d", name)
    ]
    return {lesson.number: lesson for lesson in found}


def find(question_id: str) -> Question | None:
    """The question "01.2", or None."""
    lesson = lessons().get(str(question_id).partition(".")[0])
    questions = lesson.questions if lesson else ()
    return next((q for q in questions if q.id == question_id), None)


def judge(question_id: str, answer: Any) -> Verdict:
    """Mark a recorded answer anew, from the installed package; never raises.

    Args:
        question_id: "01.2".
        answer: what check() left in the notebook (`ANSWER_TYPE`) under "answer".
    """
    question = find(question_id)
    if question is None:
        return Verdict("error", f"There is no question {str(question_id)[:40]!r}.")
    return question.judge(answer)
