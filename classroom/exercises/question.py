"""A question of a lesson: marked at once, with hints and a solution. (Introduced in lesson 00.)"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from classroom.exercises import store
from classroom.exercises.answers import ANSWER_TYPE, LONGEST_ANSWER, record_answer
from classroom.exercises.checks import Wrong
from system.markup import safe

Status = Literal["right", "wrong", "unanswered", "error"]
_SIGNS = {"right": "✓ ", "wrong": "✗ ", "error": "✗ ", "unanswered": ""}
_COLOURS = {"right": "#009E73", "wrong": "#D55E00", "error": "#D55E00"}  # Okabe and Ito's
_hints_given: dict[str, int] = {}  # question → hints shown by this kernel


@dataclass(frozen=True)
class Verdict:
    """How an answer was marked.

    Attributes:
        status: "right", "wrong", "unanswered", or "error" if it could not be marked.
        message: one or two sentences for the learner; code in backticks.
    """

    status: Status
    message: str


@dataclass(frozen=True)
class Question:
    """One exercise.

    Attributes:
        id: lesson and number, "01.2".
        task: what to do, in Markdown; it stands above the cell in the lesson.
        start: the cell as the learner finds it, up to the check: names set to three dots,
            or a function that returns them.
        ask: the arguments of check() in that cell, "answer" or "guess, measured".
        check_answer: takes the answer as JSON (for a function, the list of its recorded
            results) and returns why it is right, or raises `checks.Wrong`.
        hints: from the first step to the last, each a sentence or two.
        code: the solution, in place of `start`; it needs no other cell than
            `import helpers` and the lesson's questions.
        why: why it is so.
        inputs: where the answer is a function, gives the arguments of each call.
    """

    id: str
    task: str
    start: str
    check_answer: Callable[[Any], str]
    hints: tuple[str, ...]
    code: str
    why: str
    ask: str = "answer"
    inputs: Callable[[], Sequence[tuple[Any, ...]]] | None = None

    @property
    def number(self) -> int:
        """Its number in the lesson, from 1."""
        return int(self.id.partition(".")[2])

    @property
    def name(self) -> str:
        """What the learner reads: "Question 2"."""
        return f"Question {self.number}"

    @property
    def call(self) -> str:
        """The last line of its cell: "q2.check(guess, measured)"."""
        return f"q{self.number}.check({self.ask})"

    def cell(self, body: str) -> str:
        """Its cell in a notebook: the body (`start` or `code`), then the check."""
        blank_lines = "\n\n" if body.splitlines()[-1].startswith(" ") else ""  # after a function
        return f"# {self.name}\n{body}\n{blank_lines}{self.call}"

    def check(self, *answer: Any) -> None:
        """Mark an answer, show what was found, and leave the answer in the cell's output.

        Three dots are no answer yet: that is said, and never an error.
        """
        recorded = record_answer(answer, self.inputs)
        verdict = self.judge(recorded)
        if verdict.status != "unanswered":
            store.note_answer(self.id, verdict.status == "right")
        _show(
            f"{_SIGNS[verdict.status]}{self.name}",
            verdict.message,
            _COLOURS.get(verdict.status, "#888"),
            more={ANSWER_TYPE: {"question": self.id, "answer": recorded}},
        )

    def judge(self, recorded: Any) -> Verdict:
        """Mark a recorded answer (see `answers`); changes nothing and never raises."""
        try:
            if not isinstance(recorded, dict) or len(json.dumps(recorded)) > 2 * LONGEST_ANSWER:
                return Verdict("error", "This is no recorded answer.")
            if recorded.get("missing"):
                return Verdict(
                    "unanswered",
                    "not answered yet. Replace every `...` and run the cell again; "
                    f"`q{self.number}.hint()` gives a first step.",
                )
            if "unusable" in recorded:
                raise Wrong(f"{recorded['unusable']}.")
            return Verdict("right", self.check_answer(self._part(recorded)))
        except Wrong as error:
            words = str(error)
            return Verdict("wrong", words if len(words) <= 500 else f"{words[:499]}…")
        except Exception as error:  # an answer of a shape that nobody thought of
            words = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
            return Verdict("error", f"This answer could not be checked ({words}).")

    def _part(self, recorded: dict[str, Any]) -> Any:
        """What the check function gets; `Wrong` where it is of another kind or number."""
        if self.inputs is not None:
            if "calls" not in recorded:
                raise Wrong(f"Give the function itself, without calling it: `{self.call}`.")
            if len(recorded["calls"]) != len(self.inputs()):
                raise ValueError("results for other inputs")
            return recorded["calls"]
        names = [name.strip() for name in self.ask.split(",")]
        value = recorded["value"]
        if len(names) > 1 and not (isinstance(value, list) and len(value) == len(names)):
            raise Wrong(f"{len(names)} values are asked for: `{self.call}`.")
        return value

    def hint(self) -> None:
        """Show the next hint; after the last one, say so."""
        given = _hints_given.get(self.id, 0)
        if given >= len(self.hints):
            _show(
                self.name,
                f"there are no more hints than these {given}. "
                f"`q{self.number}.solution()` shows code, and why.",
            )
            return
        _hints_given[self.id] = given + 1
        store.note_hint(self.id, given + 1)
        _show(f"{self.name}, hint {given + 1} of {len(self.hints)}", self.hints[given])

    def solution(self) -> None:
        """Show code that answers the question, and why it is so."""
        store.note_solution(self.id)
        _show(f"{self.name}, a solution", self.why, code=self.cell(self.code))


def _show(
    title: str,
    message: str,
    colour: str = "#888",
    code: str = "",
    more: dict[str, Any] | None = None,
) -> None:
    """A box in the cell's output; without a notebook, the same as plain text."""
    notes = store.notes()
    text = "\n".join([f"{title}: {message}", *([code] if code else []), *notes])
    # Where nobody has imported IPython there is no notebook, and perhaps no IPython either.
    if "IPython" not in sys.modules:
        print(text)
        return
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.display import display

    if not InteractiveShell.initialized():
        print(text)
        return
    listing = f"<pre style='margin:6px 0 0'>{safe(code)}</pre>" if code else ""
    below = "".join(f"<p style='margin:6px 0 0'>{safe(note)}</p>" for note in notes)
    box = (
        f"<div role='status' style='border-left:4px solid {colour};padding:2px 0 2px 12px'>"
        f"<b>{safe(title)}:</b> {with_code(message)}{listing}{below}</div>"
    )
    display({"text/plain": text, "text/html": box, **(more or {})}, raw=True)


def with_code(message: str) -> str:
    """A message as HTML, what stands in backticks as code."""
    parts = re.split(r"`([^`]+)`", message)  # text and code by turns
    return "".join(f"<code>{safe(p)}</code>" if n % 2 else safe(p) for n, p in enumerate(parts))
