"""Showing, recording, hints: what surrounds the marking of an answer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from classroom.exercises import ANSWER_TYPE, Question, judge, lesson_01, question, store
from classroom.exercises.answers import record_answer
from classroom.exercises.checks import Wrong, expect

q1, q2, q3 = lesson_01.questions


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No hints given yet, no progress in memory."""
    monkeypatch.setattr(question, "_hints_given", {})
    monkeypatch.setattr(store, "_unkept", [])
    monkeypatch.setattr(store, "_said", set())
    yield
    store.notes()


def shown(call: Any, *arguments: Any) -> dict[str, Any]:
    """What a call puts below its cell."""
    InteractiveShell.instance()
    with capture_output() as captured:
        assert call(*arguments) is None
    assert not captured.stdout and not captured.stderr
    (output,) = captured.outputs
    return dict(output.data)


def test_check_shows_and_records() -> None:
    data = shown(q1.check, np.float64(3300))
    assert set(data) == {"text/plain", "text/html", ANSWER_TYPE}
    assert data["text/plain"].startswith("✓ Question 1: Requests")
    assert "role='status'" in data["text/html"]
    assert data[ANSWER_TYPE] == {"question": "01.1", "answer": {"value": 3300.0}}
    assert judge(**_named(data)).status == "right"

    data = shown(q1.check, "<b>3300</b>")
    assert data["text/plain"].startswith("✗ Question 1:")
    assert "<b>3300" not in data["text/html"] and "&lt;b&gt;3300" in data["text/html"]
    assert judge(**_named(data)).status == "wrong"
    assert judge(**_named(data)).message in data["text/plain"]


def _named(data: dict[str, Any]) -> dict[str, Any]:
    return {"question_id": data[ANSWER_TYPE]["question"], "answer": data[ANSWER_TYPE]["answer"]}


def test_unanswered_is_the_same_for_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored outputs are compared to the letter, whatever the learner did before."""
    before = shown(q1.check, ...)
    assert before["text/plain"].startswith("Question 1: not answered yet.")
    assert before[ANSWER_TYPE] == {"question": "01.1", "answer": {"missing": True}}
    file = tmp_path / "progress.json"
    file.write_text("broken")
    monkeypatch.setenv(store.VARIABLE, str(file))
    assert shown(q1.check, ...) == before
    assert file.read_text() == "broken", "an unanswered question touches no file"


def test_hints_one_by_one_and_then_no_more() -> None:
    for n, hint in enumerate(q1.hints, start=1):
        assert shown(q1.hint)["text/plain"] == f"Question 1, hint {n} of {len(q1.hints)}: {hint}"
    for _ in range(2):
        text = shown(q1.hint)["text/plain"]
        assert "no more hints" in text and "q1.solution()" in text
    assert "hint 1 of" in shown(q2.hint)["text/plain"], "each question counts its own"
    assert store.current().questions["01.1"].hints == len(q1.hints)


def test_solution_shows_code_and_why() -> None:
    data = shown(q2.solution)
    assert q2.code in data["text/plain"] and q2.why in data["text/plain"]
    assert data["text/plain"].endswith("\n\n\nq2.check(fits)")
    assert "<pre" in data["text/html"] and "&lt;= generator.context" in data["text/html"]
    assert store.current().questions["01.2"].solution


def test_a_function_is_called_on_copies_and_may_fail() -> None:
    seen: list[Any] = []

    def spoil(rows: list[int]) -> int:
        rows.append(1)
        seen.append(rows)
        return len(rows)

    given = [([1, 2],), ([1, 2],)]
    assert record_answer((spoil,), lambda: given) == {"calls": [{"value": 3}, {"value": 3}]}
    assert given == [([1, 2],), ([1, 2],)]

    def leave(rows: list[int]) -> None:
        raise SystemExit("bye")

    assert record_answer((leave,), lambda: given)["calls"][0] == {"raised": "SystemExit: bye"}


class Odd:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("do not look")


def endless() -> list[Any]:
    rows: list[Any] = []
    rows.append(rows)
    return rows


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.int64(3), 3), (np.float32(0.5), 0.5), (np.bool_(True), True), (torch.tensor(7), 7),
        (torch.tensor([1.0, 2.0]), [1.0, 2.0]), (np.array([[1], [2]]), [[1], [2]]),
        ((1, "a"), [1, "a"]), ({1: (2,)}, {"1": [2]}), (None, None), (range(3), [0, 1, 2]),
        (pd.Series([1, 2]), [1, 2]), ("text", "text"), (True, True),
    ],
)  # fmt: skip
def test_answers_become_json(value: Any, plain: Any) -> None:
    recorded = record_answer((value,), None)
    assert recorded == {"value": plain} and type(recorded["value"]) is type(plain)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({1, 2}, "of type set"), (b"ab", "of type bytes"), (object(), "of type object"),
        (float("inf"), "inf"), (10**1000, "beyond every limit"), (["x" * 30_000], "too long"),
        (Odd(), "do not look"), (endless(), "RecursionError"), (len, "function `len` itself"),
    ],
    ids="set bytes object inf huge long odd endless function".split(),
)  # fmt: skip
def test_what_cannot_be_marked_is_said(value: Any, words: str) -> None:
    recorded = record_answer((value,), None)
    assert words in recorded["unusable"]
    assert q1.judge(recorded).status == "wrong"


def test_a_check_that_fails_itself_is_a_message() -> None:
    def broken(answer: Any) -> str:
        return str(answer["no such thing"])

    made = Question("01.7", "?", "answer = ...", broken, ("a",), "answer = 1", "because")
    verdict = made.judge({"value": {}})
    assert verdict.status == "error" and "KeyError" in verdict.message
    assert shown(made.check, {})["text/plain"].startswith("✗ Question 7: This answer could not")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (2e3, "factor of 1,000:"), (2e-6, "factor of 1,000,000:"), (2 / 1.024, "divided by 1024"),
        (2 / 1.024**3, "divided by 1024"), (200, "factor of 100:"), (-2, "wrong sign"),
        (0.5, "upside down"), (3, "off by one"), (1.2, "too low"), (0, "too low"),
    ],
)  # fmt: skip
def test_mistakes_that_are_made_everywhere(value: float, words: str) -> None:
    expect(2.004, 2, "MB")
    with pytest.raises(Wrong, match=words):
        expect(value, 2, "MB")


def test_outside_of_a_notebook_it_is_plain_text_and_light() -> None:
    code = (
        "import sys\nfrom classroom.exercises import lesson_01\n"
        "q1, q2, q3 = lesson_01.questions\nq1.check(...)\nq1.check(900)\nq1.hint()\n"
        "print([m for m in ('torch', 'transformers', 'pandas', 'ipywidgets') if m in sys.modules])"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    lines = child.stdout.splitlines()
    assert lines[0].startswith("Question 1: not answered")
    assert lines[1].startswith("✗ Question 1: That is the prompts alone")
    assert lines[2].startswith("Question 1, hint 1") and lines[-1] == "[]"
