"""`make sync`: course.toml and the repository's name, carried into every file."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from classroom import course
from tests.conftest import ROOT

LESSONS = course.notebooks()


def sync(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tools/sync.py", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def cells(folder: Path, number: str) -> list[Any]:
    """The cells of a lesson, checked as a notebook."""
    path = folder / "notebooks" / course.lesson(number).notebook
    return list(nbformat.read(path, as_version=4).cells)


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What sync reads and writes, in a folder of its own."""
    ignore = shutil.ignore_patterns("__pycache__", "mine", "solutions", ".ipynb_checkpoints")
    for name in ("tools", "classroom", "notebooks", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    for name in ("README.md", "CONTRIBUTING.md", "CITATION.cff", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_nothing_is_behind() -> None:
    ran = sync(ROOT, "--check")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", ""), ran.stdout + ran.stderr


def test_a_changed_title_and_study_time_arrive_everywhere(copy: Path) -> None:
    manifest = copy / "notebooks" / course.MANIFEST
    change(manifest, '"Tokenization"\nminutes = 25', '"Words to ids"\nminutes = 26')
    behind = sync(copy, "--check")
    assert behind.returncode == 1
    named = re.findall(r"[\w/]+\.(?:md|ipynb)", behind.stdout)
    numbers = ("00_start_here", "01_tokenization", "02_basic_generation")
    assert named == ["README.md", "docs/instructors.md", *(f"notebooks/{n}.ipynb" for n in numbers)]

    assert sync(copy).returncode == 0
    assert sync(copy, "--check").returncode == 0
    start, lesson, after = (cells(copy, number) for number in ("00", "01", "02"))
    assert lesson[0].source.startswith("# 01 · Words to ids\n")
    assert any("**Time:** 26 minutes" in cell.source for cell in lesson)
    for neighbour in (start, after):
        for cell in (neighbour[0], neighbour[-1]):
            assert "01 Words to ids" in cell.source.splitlines()[-1]
    row = "| [01 Words to ids](01_tokenization.ipynb) |"
    (of_map,) = [line for cell in start for line in cell.source.splitlines() if row in line]
    assert of_map.endswith("| 26 |")
    assert "[Words to ids](notebooks/01_tokenization.ipynb)" in (copy / "README.md").read_text()
    (guide,) = re.findall(r"\| 01 Words to ids .*", (copy / "docs/instructors.md").read_text())
    measured = re.findall(r"\| 01 Tokenization .*", (ROOT / "docs/instructors.md").read_text())
    assert [guide.replace("Words to ids | 26", "Tokenization | 25")] == measured


def test_a_changed_recap_arrives_as_text(copy: Path) -> None:
    question = "classroom/exercises/lesson_06.py"
    change(copy / question, "reports a busy server as dead.", "calls a busy server dead.")
    behind = sync(copy, "--check")
    assert behind.returncode == 1 and behind.stdout.endswith(" notebooks/06_serving.ipynb\n")
    assert sync(copy).returncode == 0
    assert any("calls a busy server dead." in cell.source for cell in cells(copy, "06"))


def test_what_is_written_by_hand_is_behind(copy: Path) -> None:
    path = copy / "notebooks" / "03_parameter_sliders.ipynb"
    shipped = path.read_bytes()
    notebook = json.loads(shipped)
    notebook["cells"][-1]["source"][-1] = "[← somewhere else](01_tokenization.ipynb)"
    path.write_text(json.dumps(notebook, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    assert sync(copy, "--check").returncode == 1
    assert sync(copy).returncode == 0
    assert path.read_bytes() == shipped


def test_a_planned_lesson_is_announced_and_a_missing_one_refused(copy: Path) -> None:
    assert "next: 07 Prompts and token-level control" in cells(copy, "06")[-1].source
    (copy / "notebooks" / "06_serving.ipynb").unlink()
    ran = sync(copy)
    assert ran.returncode == 1
    assert ran.stderr == "notebooks/course.toml lists 06_serving.ipynb, which is not there.\n"


def test_a_wrong_manifest_is_said_in_one_line(copy: Path) -> None:
    change(copy / "notebooks" / course.MANIFEST, '"Tokenization"\nminutes', '"T"\nhours')
    ran = sync(copy)
    assert ran.returncode == 1 and ran.stdout == ""
    assert ran.stderr.count("\n") == 1 and "course.toml, lesson 1 minutes" in ran.stderr


def test_links_follow_the_one_setting(copy: Path) -> None:
    setting = re.search(r'repository = "([^"]+)"', (copy / "pyproject.toml").read_text())
    assert setting
    change(copy / "pyproject.toml", setting[0], 'repository = "ada/my-course.v2"')
    behind = sync(copy, "--check")
    assert behind.returncode == 1 and "README.md" in behind.stdout
    assert sync(copy).returncode == 0
    assert sync(copy, "--check").returncode == 0
    for path in (copy / "README.md", copy / "CITATION.cff", *(copy / "notebooks").glob("*.ipynb")):
        assert f"/{setting[1]}" not in path.read_text(encoding="utf-8"), path.name
    assert "mybinder.org/v2/gh/ada/my-course.v2/" in (copy / "README.md").read_text()


def test_the_cell_for_colab_is_put_in_and_nothing_else_changes(copy: Path) -> None:
    """On lessons without the cell, and on lessons that have an older one."""
    shipped = {path.name: path.read_bytes() for path in LESSONS}
    others: dict[str, str] = {}
    for number, path in enumerate(LESSONS):
        notebook = json.loads(shipped[path.name])
        place = next(n for n, c in enumerate(notebook["cells"]) if c["cell_type"] == "code")
        cell = notebook["cells"].pop(place)
        others[path.name] = json.dumps(notebook)
        if number % 2:
            assert "git clone" in cell["source"][-2]
            cell["source"][-2:] = ["    old()"]
            notebook["cells"].insert(place, cell)
        text = json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"
        (copy / "notebooks" / path.name).write_text(text, encoding="utf-8")
    behind = sync(copy, "--check")
    assert behind.returncode == 1 and all(path.name in behind.stdout for path in LESSONS)
    assert sync(copy).returncode == 0
    for path in LESSONS:
        made = copy / "notebooks" / path.name
        notebook = json.loads(made.read_bytes())
        nbformat.validate(nbformat.read(made, as_version=4))
        cell = notebook["cells"].pop(1)  # below the title and its badges
        assert cell["source"] == json.loads(shipped[path.name])["cells"][1]["source"]
        assert json.dumps(notebook) == others[path.name]
    assert sync(copy, "--check").returncode == 0
    assert not list((copy / "notebooks").glob(".*.new"))


def test_cells_that_teach_nothing_are_folded(copy: Path) -> None:
    for path in LESSONS:
        cells = nbformat.read(path, as_version=4).cells
        folded = [c.source for c in cells if c.metadata.get("jupyter", {}).get("source_hidden")]
        assert len(folded) == 2, path.name
        assert "google.colab" in folded[0] and "require(globals()" in folded[1]
    lesson = copy / "notebooks" / LESSONS[-1].name
    lesson.write_text(lesson.read_text(encoding="utf-8").replace("source_hidden", "other"), "utf-8")
    assert sync(copy, "--check").returncode == 1
