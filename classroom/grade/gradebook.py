"""The gradebook: a CSV for other programs, and a page that needs no other file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from classroom.exercises import lessons
from classroom.grade.marking import Mark, Marked

SIGNS = {"right": "✓", "wrong": "✗", "error": "!", "unanswered": "–"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass
class Row:
    """One learner.

    Attributes:
        learner: their name.
        marked: their notebooks, in the order of the lessons.
        marks: question → mark; questions of lessons not handed in are missing.
    """

    learner: str
    marked: list[Marked] = field(default_factory=list)
    marks: dict[str, Mark] = field(default_factory=dict)

    @property
    def right(self) -> int:
        """Questions answered right."""
        return sum(one.right for one in self.marked)

    @property
    def attempts(self) -> int:
        """Answers checked."""
        return sum(mark.attempts for mark in self.marks.values())

    @property
    def errors(self) -> int:
        """Cells that raised."""
        return sum(one.errors for one in self.marked)

    @property
    def problems(self) -> str:
        """Why notebooks did not run to their end."""
        return "; ".join(f"{m.submission.lesson}: {m.problem}" for m in self.marked if m.problem)


def rows(marked: Sequence[Marked]) -> list[Row]:
    """A row a learner."""
    found: dict[str, Row] = {}
    for one in marked:
        row = found.setdefault(one.submission.learner, Row(one.submission.learner))
        row.marked.append(one)
        row.marks |= one.marks
    return list(found.values())


def questions(marked: Sequence[Marked]) -> list[str]:
    """The columns: every question of every lesson that somebody handed in."""
    numbers = sorted({one.submission.lesson for one in marked})
    return [question.id for number in numbers for question in lessons()[number].questions]


def write_csv(path: Path, marked: Sequence[Marked]) -> None:
    """A row a learner; a question's column holds right, wrong, error, unanswered or nothing."""
    columns = questions(marked)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["learner", *columns, "right", "attempts", "errors", "problems"])
        for row in rows(marked):
            states = [row.marks[q].verdict.status if q in row.marks else "" for q in columns]
            cells = [row.learner, *states, row.right, row.attempts, row.errors, row.problems]
            writer.writerow([_harmless(cell) for cell in cells])


def _harmless(cell: object) -> object:
    """Text that a spreadsheet would take for a formula, as text (CSV injection)."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def write_page(
    path: Path, marked: Sequence[Marked], warning: str = "", notes: Sequence[str] = ()
) -> None:
    """The HTML gradebook.

    Args:
        path: where.
        marked: all notebooks.
        warning: shown at the top.
        notes: about files that were left out.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    columns, table = questions(marked), rows(marked)
    solved = {
        q: (sum(row.marks[q].verdict.status == "right" for row in table if q in row.marks),
            sum(q in row.marks for row in table))
        for q in columns
    }  # fmt: skip
    page = environment.get_template("gradebook.html.j2").render(
        made=datetime.now().astimezone().strftime("%d %B %Y, %H:%M").lstrip("0"),
        columns=columns,
        table=table,
        solved=solved,
        signs=SIGNS,
        warning=warning,
        notes=notes,
    )
    path.write_text(page, encoding="utf-8")
