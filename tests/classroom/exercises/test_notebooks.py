"""Exercises in the lessons' notebooks, and the notebooks of solutions made from them."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from nbformat import NotebookNode

from classroom import course
from classroom.exercises import ANSWER_TYPE, Lesson, judge, lessons
from tests.lessons import MACHINE_PATH

ROOT = Path(__file__).resolve().parents[3]
each_lesson = pytest.mark.parametrize("lesson", lessons().values(), ids=lambda x: x.number)


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("solutions")


def lesson_file(lesson: Lesson) -> Path:
    return course.NOTEBOOKS / course.lesson(lesson.number).notebook


def answers(notebook: NotebookNode) -> dict[str, object]:
    """Question → recorded answer, as a grader reads it."""
    found = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            answer = output.get("data", {}).get(ANSWER_TYPE)
            if answer:
                found[answer["question"]] = answer["answer"]
    return found


def test_a_lesson_with_exercises_has_a_notebook_and_the_other_way_round() -> None:
    numbers = {lesson.number for lesson in course.written()}
    asking = {
        path.name[:2]
        for path in course.notebooks()
        if "classroom.exercises" in path.read_text(encoding="utf-8")
    }
    assert set(lessons()) <= numbers and set(lessons()) == asking


@each_lesson
def test_the_lesson_asks_what_the_questions_say(lesson: Lesson) -> None:
    """`python tools/exercises.py` puts them there; the stored outputs are unanswered."""
    notebook = nbformat.read(lesson_file(lesson), as_version=4)
    assert notebook.cells[0].source.startswith(f"# {lesson.number} · {lesson.title}\n")
    prose = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    sources = [c.source for c in notebook.cells if c.cell_type == "code"]
    for question in lesson.questions:
        assert f"**{question.name}.** {question.task}" in prose
        assert question.cell(question.start) in sources
    assert f"lesson_{lesson.number}.recap.show()" in sources
    for recap in lesson.recap.questions:
        assert recap.text in prose, "the same question stands there as text"
    stored = answers(notebook)
    assert set(stored) == {question.id for question in lesson.questions}
    assert all(judge(*item).status == "unanswered" for item in stored.items())


@each_lesson
def test_stored_solutions_are_those_of_the_questions(lesson: Lesson, tool: ModuleType) -> None:
    """`make solutions` writes them anew."""
    path = lesson_file(lesson)
    stored = nbformat.read(path.parent / "solutions" / path.name, as_version=4)
    built = tool.build(lesson, path.name)
    assert [c.source for c in stored.cells] == [c.source for c in built.cells]
    found = answers(stored)
    assert set(found) == {question.id for question in lesson.questions}
    assert all(judge(*item).status == "right" for item in found.items())
    for written in (path, path.parent / "solutions" / path.name):
        text = written.read_text(encoding="utf-8")
        assert MACHINE_PATH.search(text) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "lesson",
    [pytest.param(x, marks=[pytest.mark.soak] * (n > 0)) for n, x in enumerate(lessons().values())],
    ids=lambda x: x.number,
)
def test_solutions_run(lesson: Lesson, tool: ModuleType, tmp_path: Path) -> None:
    """As notebooks: the code of every one is run by `test_own_solution`, in one process."""
    notebook = tool.build(lesson, lesson_file(lesson).name)
    tool.run(notebook, tmp_path)
    assert all(judge(*item).status == "right" for item in answers(notebook).items())
    assert set(answers(notebook)) == {question.id for question in lesson.questions}
