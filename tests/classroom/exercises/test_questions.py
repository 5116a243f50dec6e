"""Each question: unanswered, solved by its solution and otherwise, and wrong in usual ways."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

import helpers
from classroom.exercises import Question, find, judge, lessons
from classroom.exercises.answers import record_answer

from .cases import Answer, Case

CASES: dict[str, Case] = {
    case.question: case
    for file in sorted(Path(__file__).parent.glob("answers_*.py"))
    for case in importlib.import_module(f"{__package__}.{file.stem}").CASES
}
QUESTIONS = [question for lesson in lessons().values() for question in lesson.questions]
each_question = pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: q.id)
RIGHT = [(c.question, answer) for c in CASES.values() for answer in c.right]
WRONG = [(c.question, answer, words) for c in CASES.values() for answer, words in c.wrong]


def recorded(question: Question, answer: tuple[Any, ...]) -> Any:
    """The answer as a stored notebook keeps it."""
    return json.loads(json.dumps(record_answer(answer, question.inputs)))


def wanted(question_id: str) -> Question:
    question = find(question_id)
    assert question is not None
    return question


def test_every_lesson_asks_and_is_tried() -> None:
    assert set(CASES) == {question.id for question in QUESTIONS}
    for number, lesson in lessons().items():
        assert 2 <= len(lesson.questions) <= 4
        assert [q.id for q in lesson.questions] == [
            f"{number}.{n}" for n in range(1, len(lesson.questions) + 1)
        ]
        assert any("Predict" in q.task for q in lesson.questions)
    for case in CASES.values():
        assert len(case.right) >= 1
        assert len({words for _, words in case.wrong}) >= 3


@each_question
def test_unanswered(question: Question) -> None:
    """As the learner finds the cell: said, not marked."""
    names: dict[str, Any] = {}
    exec(question.start, names)
    answer = eval(f"({question.ask},)", names)
    verdict = judge(question.id, recorded(question, answer))
    assert verdict.status == "unanswered" and f"q{question.number}.hint()" in verdict.message
    for nothing in ((), (...,), ([..., 3],)):
        assert judge(question.id, recorded(question, nothing)).status == "unanswered"


@pytest.mark.slow
@each_question
def test_own_solution(question: Question) -> None:
    """Its code, run for real, is right; and the code does not need the lesson's cells."""
    number = question.id.partition(".")[0]
    module = importlib.import_module(f"classroom.exercises.lesson_{number}")
    for _ in range(3):  # what it times may be off while the machine does something else
        names: dict[str, Any] = {"helpers": helpers, f"lesson_{number}": module}
        exec(question.code, names)
        answer = eval(f"({question.ask},)", names)
        verdict = judge(question.id, recorded(question, answer))
        if verdict.status == "right":
            break
    assert verdict.status == "right", verdict.message
    assert len(question.why) > 40


@pytest.mark.parametrize(("question_id", "answer"), RIGHT, ids=[q for q, _ in RIGHT])
def test_other_right_answers(question_id: str, answer: Answer) -> None:
    verdict = judge(question_id, recorded(wanted(question_id), answer()))
    assert verdict.status == "right", verdict.message
    assert len(verdict.message) > 20


@pytest.mark.parametrize(
    ("question_id", "answer", "words"), WRONG, ids=[f"{q} {w}" for q, _, w in WRONG]
)
def test_wrong_answers(question_id: str, answer: Answer, words: str) -> None:
    """Told apart, in a short sentence for learners."""
    verdict = judge(question_id, recorded(wanted(question_id), answer()))
    assert verdict.status == "wrong" and re.search(words, verdict.message), verdict
    assert verdict.message[-1] in ".:?!)…" and len(verdict.message) < 300


@each_question
def test_texts_are_for_learners(question: Question) -> None:
    """Short, and no hint is given twice; every task stands on its own."""
    assert len(question.hints) >= 2 and len(set(question.hints)) == len(question.hints)
    for text in (question.task, question.why, *question.hints):
        assert text[-1] in ".:?!)" and len(text) < 400


FORGED = [
    None, 3, "right", [], {}, {"status": "right"}, {"value": {"a": [1, None]}}, {"calls": "no"},
    {"calls": [1, 2, 3]}, {"calls": []}, {"value": float("nan")}, {"value": [float("nan")] * 3},
    {"value": 10**400}, {"value": "x" * 100_000}, {"unusable": 3}, {"missing": False},
    {"calls": [{"raised": 3}] * 5}, {"value": [[[[1]]]]},
]  # fmt: skip


@each_question
def test_a_forged_record_is_neither_right_nor_an_exception(question: Question) -> None:
    for forged in FORGED:
        verdict = judge(question.id, forged)
        assert verdict.status in ("wrong", "error"), repr(forged)[:80]
        assert len(verdict.message) <= 500, repr(forged)[:80]


def test_unknown_questions_are_errors() -> None:
    for name in ("99.1", "01.9", "", "01", None, "01.1 "):
        assert judge(name, {"value": 1}).status == "error"  # type: ignore[arg-type]
