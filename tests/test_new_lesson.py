"""`make new-lesson`: a lesson's frame, made in a copy of the course, passes the lessons' tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from classroom import course
from tests.conftest import ROOT
from tests.test_binder import copy_course

TESTS = [
    "test_notebooks.py",
    "test_smallest.py",
    "test_glossary.py",
    "test_instructors.py",
    "classroom/exercises",
]
# A planned lesson, as long as there is one; then the number after the last.
FREE = next((one.number for one in course.read() if one.planned), f"{len(course.read()):02d}")


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in this folder, with the course that lies there."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_a_new_lesson_passes_the_tests_of_a_lesson(tmp_path: Path) -> None:
    copy_course(tmp_path)
    number, title = FREE, "Steering, and more"
    ran = python(tmp_path, "tools/new_lesson.py", number, "steering", title)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    manifest = course.read(tmp_path / "notebooks")
    (lesson,) = [one for one in manifest if one.number == number]
    assert (lesson.file, lesson.title, lesson.planned) == (f"{number}_steering", title, False)
    assert len(manifest) == max(len(course.read()), int(number) + 1)
    assert f"[{title}](notebooks/{number}_steering.ipynb)" in (tmp_path / "README.md").read_text()

    paths = [f"tests/{name}" for name in TESTS]
    options = ["-q", "-p", "no:cacheprovider", "-m", "not slow and not soak", "-k", number]
    tried = python(tmp_path, "-m", "pytest", *options, *paths)
    assert tried.returncode == 0, tried.stdout[-6000:]
    passed = re.search(r"(\d+) passed", tried.stdout)
    assert passed and int(passed[1]) >= 30, tried.stdout[-500:]
    style = python(tmp_path, "-m", "ruff", "check", ".")
    assert style.returncode == 0, style.stdout
    assert python(tmp_path, "-m", "ruff", "format", "--check", ".").returncode == 0
    assert python(tmp_path, "tools/sync.py", "--check").returncode == 0

    again = python(tmp_path, "tools/new_lesson.py", number, "steering", title)
    assert again.returncode == 2 and f"NUMBER={number} is not free" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["06", "serving"], "NUMBER=06 is not free. These are: "),
        (["99", "far_away", "Far away"], "NUMBER=99 is not free"),
        ([FREE, "Two words", "A title"], "SLUG='Two words' must be small letters"),
        ([FREE, "good", 'A "title"'], "TITLE='A \"title\"' must be a text of one line"),
        ([f"{len(course.read()):02d}", "good"], "TITLE='' must be a text"),
    ],
)
def test_what_cannot_be_made_is_said_in_one_line(arguments: list[str], words: str) -> None:
    ran = python(ROOT, "tools/new_lesson.py", *arguments)
    assert ran.returncode == 2 and ran.stdout == ""
    assert words in ran.stderr and ran.stderr.count("\n") == 1
