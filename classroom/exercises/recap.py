"""Recap questions, answered in the notebook: radio buttons, and an explanation after choosing.

The same questions stand below the widget as text, for readers without a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from classroom.exercises import store
from classroom.exercises.question import with_code
from system.markup import safe

if TYPE_CHECKING:
    from classroom.exercises.recap_widget import RecapWidget


@dataclass(frozen=True)
class RecapQuestion:
    """A question with options to choose from.

    Attributes:
        text: the question.
        options: two to four answers, each short enough for one line.
        right: the place of the right one, from 0.
        explanation: why, in one to three sentences; shown whatever was chosen.
    """

    text: str
    options: tuple[str, ...]
    right: int
    explanation: str

    def response(self, chosen: int) -> str:
        """What is shown after choosing an option, as HTML."""
        verdict = "✓ Right." if chosen == self.right else "✗ Not this one."
        style = "line-height:1.4;margin-bottom:10px"
        words = with_code(self.explanation)
        return f"<div role='status' style='{style}'><b>{verdict}</b> {words}</div>"


@dataclass(frozen=True)
class Recap:
    """The recap of a lesson.

    Attributes:
        lesson: its number, "01".
        questions: three of them.
    """

    lesson: str
    questions: tuple[RecapQuestion, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """The names of the questions in the progress file: "01.recap1" and so on."""
        return tuple(f"{self.lesson}.recap{n}" for n in range(1, len(self.questions) + 1))

    def choose(self, number: int, option: int) -> str:
        """Answer a question (both counted from 0): notes it, and gives the response as HTML."""
        question = self.questions[number]
        store.note_recap(self.ids[number], option == question.right)
        said = "".join(f"<p>{safe(note)}</p>" for note in store.notes())
        return question.response(option) + said

    def as_text(self) -> str:
        """All questions, each unfolding to its right option and why: Markdown, for `make sync`."""
        return "\n\n".join(
            f"<details><summary>{number}. {question.text}</summary>\n\n"
            f"**{question.options[question.right]}.** {question.explanation}\n</details>"
            for number, question in enumerate(self.questions, start=1)
        )

    def show(self) -> RecapWidget:
        """The widget, for the last line of a cell."""
        from classroom.exercises.recap_widget import RecapWidget

        return RecapWidget(self)
