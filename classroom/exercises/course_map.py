"""The course map with the learner's ticks: `classroom.progress()`. (Introduced in lesson 00.)"""

from __future__ import annotations

from dataclasses import dataclass

from classroom.exercises import store
from classroom.exercises.catalogue import lessons
from system.markup import safe


@dataclass(frozen=True)
class Row:
    """How far one lesson has come."""

    title: str
    questions: int
    solved: int
    hints: int
    recaps: int
    answered: int  # recap questions whose right option was found

    @property
    def done(self) -> bool:
        """Whether every question is solved and every recap question answered."""
        return self.solved == self.questions and self.answered == self.recaps


class CourseMap:
    """A table for the last line of a cell, and plain text for everything else."""

    def __init__(self, rows: list[Row], notes: list[str]) -> None:
        self.rows, self.notes = rows, notes

    def __repr__(self) -> str:
        width = max(len(row.title) for row in self.rows)
        lines = [
            f"{'✓' if row.done else ' '} {row.title:<{width}}  "
            f"exercises {row.solved} of {row.questions}, recap {row.answered} of {row.recaps}, "
            f"hints {row.hints}"
            for row in self.rows
        ]
        return "\n".join([*lines, *self.notes])

    def _repr_html_(self) -> str:
        head = "".join(
            f'<th scope="col" style="text-align:left">{title}</th>'
            for title in ("done", "lesson", "exercises", "recap", "hints used")
        )
        rows = ""
        for row in self.rows:
            cells = (
                _ticks(row.solved, row.questions),
                _ticks(row.answered, row.recaps),
                str(row.hints),
            )
            values = "".join(f'<td style="text-align:left">{cell}</td>' for cell in cells)
            rows += (
                f'<tr><td style="text-align:left">{"✓" if row.done else ""}</td>'
                f'<th scope="row" style="text-align:left">{safe(row.title)}</th>'
                f"{values}</tr>"
            )
        below = "".join(f"<p>{safe(note)}</p>" for note in self.notes)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{below}"


def progress() -> CourseMap:
    """Every lesson with exercises, and what you have solved, answered and asked hints for."""
    state = store.current()
    rows = []
    for lesson in lessons().values():
        entries = [state.questions.get(q.id, store.QuestionProgress()) for q in lesson.questions]
        right = [state.recaps.get(q, store.RecapProgress()).right for q in lesson.recap.ids]
        rows.append(
            Row(
                title=f"{lesson.number} {lesson.title}",
                questions=len(entries),
                solved=sum(entry.solved for entry in entries),
                hints=sum(entry.hints for entry in entries),
                recaps=len(right),
                answered=sum(right),
            )
        )
    return CourseMap(rows, [*store.notes(), _place()])


def forget_progress() -> None:
    """Delete your progress from this machine. There is no way back."""
    print(store.forget())
    for note in store.notes():
        print(note)


def _ticks(count: int, of: int) -> str:
    """A tick for each thing done, a dot for each to come, and the same in words."""
    return f"{'✓' * count}{'·' * (of - count)} <small>{count} of {of}</small>"


def _place() -> str:
    """Where the progress is kept."""
    path = store.location()
    if path is None:
        return f"This run keeps no progress ({store.VARIABLE}=off, or no home folder)."
    return f"Kept on this machine only: {path}. classroom.forget_progress() deletes it."
