"""The answers in an executed notebook, marked by the installed package."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from classroom.exercises import ANSWER_TYPE, Verdict, judge, lessons
from classroom.grade.submissions import Submission
from classroom.report.collect import read_notebook


@dataclass
class Mark:
    """One question of one learner.

    Attributes:
        verdict: of the last answer; "unanswered" where there is none.
        attempts: how many answers the notebook checks, three dots not counted.
    """

    verdict: Verdict
    attempts: int = 0


@dataclass
class Marked:
    """One notebook, run and marked.

    Attributes:
        submission: whose, and where.
        marks: question "01.2" → mark, every question of the lesson.
        errors: cells that raised, those not counted that do so on purpose.
        problem: why it did not run to its end; else empty.
        seconds: how long it ran.
    """

    submission: Submission
    marks: dict[str, Mark] = field(default_factory=dict)
    errors: int = 0
    problem: str = ""
    seconds: float = 0.0

    @property
    def right(self) -> int:
        """Questions answered right."""
        return sum(mark.verdict.status == "right" for mark in self.marks.values())


def mark(submission: Submission, executed: Path, problem: str, seconds: float) -> Marked:
    """Mark what an executed notebook's checks recorded.

    Only the recorded answers are used, never what the notebook says about them. Questions
    of other lessons are left out.

    Args:
        submission: whose notebook.
        executed: as written by the run, perhaps not to its end, perhaps not at all.
        problem: why it did not run to its end; else empty.
        seconds: how long it ran.
    """
    done = Marked(submission, problem=problem, seconds=seconds)
    asked = lessons()[submission.lesson].questions
    done.marks = {q.id: Mark(Verdict("unanswered", "no check of it was run")) for q in asked}
    notebook = read_notebook(executed)
    if notebook is None:
        done.problem = problem or "nothing was written"
        return done
    for question, answer in _answers(notebook, done):
        one = done.marks.get(question)
        if one is None:
            continue
        one.verdict = judge(question, answer)
        one.attempts += one.verdict.status != "unanswered"
    return done


def _answers(notebook: Any, done: Marked) -> Iterator[tuple[str, Any]]:
    """(question, recorded answer) in the order of the cells; errors are counted on the way."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                done.errors += "raises-exception" not in cell.metadata.get("tags", [])
            recorded = output.get("data", {}).get(ANSWER_TYPE)
            if isinstance(recorded, dict) and isinstance(recorded.get("question"), str):
                yield recorded["question"], recorded.get("answer")
