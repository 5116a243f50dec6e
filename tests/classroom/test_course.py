"""The manifest of the lessons, notebooks/course.toml: read, and refused where it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from classroom import course

ONE = """
[[lesson]]
file = "{file}"
title = "A title"
minutes = {minutes}
aims = "what one learns"
question = "what does it answer?"
"""


def manifest(folder: Path, *lessons: str) -> Path:
    (folder / course.MANIFEST).write_text("".join(lessons), encoding="utf-8")
    return folder


def test_every_notebook_is_listed_and_every_listed_one_is_there() -> None:
    """A notebook that nobody lists would be in no test, and in no report."""
    there = {path.name for path in course.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")}
    assert there == {path.name for path in course.notebooks()}
    assert len(course.read()) == 11 and course.lesson("06").title == "Serving"


def test_planned_lessons_have_no_notebook(tmp_path: Path) -> None:
    lessons = [ONE.format(file="00_a", minutes=1), ONE.format(file="01_b", minutes=2)]
    folder = manifest(tmp_path, *lessons, "planned = true\n")
    assert [lesson.number for lesson in course.read(folder)] == ["00", "01"]
    assert course.notebooks(folder) == [tmp_path / "00_a.ipynb"]


@pytest.mark.parametrize(
    ("lessons", "message"),
    [
        ([], "course.toml, lesson: Field required"),
        ([ONE.format(file="01_a", minutes=1)], "without a gap, not 01"),
        ([ONE.format(file="00_a", minutes=1)] * 2, "without a gap, not 00, 00"),
        ([ONE.format(file="00-a", minutes=1)], "course.toml, lesson 0 file: String should match"),
        ([ONE.format(file="00_a", minutes=0)], "lesson 0 minutes: .* greater than or equal to 1"),
        ([ONE.format(file="00_a", minutes=1), "goals = 1"], "lesson 0 goals: Extra inputs"),
        (["[[lesson"], "course.toml: "),
    ],
)
def test_a_wrong_manifest_is_refused_with_its_place(
    lessons: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        course.read(manifest(tmp_path, *lessons))
