"""docs/instructors.md: its links arrive, its study times are the lessons', its options exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import nbformat
import pytest

from classroom import course
from classroom.report.__main__ import arguments
from classroom.report.parameters import parse_parameters
from tests.conftest import ROOT

DOCUMENT = ROOT / "docs" / "instructors.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
LESSONS = course.notebooks()


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda p: p.stem)
def test_study_time_is_that_of_the_lesson(lesson: Path) -> None:
    cells = nbformat.read(lesson, as_version=4).cells
    said = re.search(r"\*\*Time:?\*\* (\d+ min)utes", "\n".join(c.source for c in cells))
    row = re.search(rf"^\| {lesson.name[:2]} [^|]*\| (\d+ min) \|", TEXT, re.MULTILINE)
    assert said and row, "a lesson states its time, and the table has a row for it"
    assert row[1] == said[1]


def test_links_arrive() -> None:
    for path, anchor in re.findall(r"\]\(([^)#:]*)#?([^):]*)\)", TEXT):
        target = DOCUMENT.parent / path if path else DOCUMENT
        assert target.is_file(), path
        if anchor:
            content = target.read_text(encoding="utf-8")
            headings = re.findall(r"^#+ (.+)$", content, re.MULTILINE)
            slugs = {re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in headings}
            assert anchor in slugs | set(re.findall(r'<a id="([^"]+)">', content)), anchor


def test_every_report_command_is_understood() -> None:
    commands = re.findall(r"make report([^\n`]*)", TEXT)
    given = [re.search(r'ARGS="([^"]*)"', command) for command in commands]
    lines = [match[1] for match in given if match]
    assert len(lines) >= 5
    for line in lines:
        options = arguments().parse_args(shlex.split(line))
        assert parse_parameters(options.parameters) or "-p" not in line
