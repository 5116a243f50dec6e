"""Every lesson as it is stored: its frame, cells and outputs. `test_lesson_runs.py` runs it."""

from __future__ import annotations

import ast
import dataclasses
import html
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nbformat
import pytest

from classroom import course
from helpers.models import cards
from tests.conftest import ROOT
from tests.lessons import (
    MACHINE_PATH,
    NOTEBOOKS,
    PARAMETERS,
    REAL_MODEL,
    REAL_MODEL_TAG,
    code_cells,
    comparable,
    contrast,
    defaults,
    each_lesson,
    ignored,
    outputs,
    parameters_cell,
    read,
    recorded,
    tags,
    texts,
    tiny,
)

START = "00_start_here.ipynb"


# --- the course as a whole


def test_there_are_lessons() -> None:
    assert NOTEBOOKS and NOTEBOOKS[0].name == START
    assert [p.stem for p in NOTEBOOKS] == [one.file for one in course.read() if not one.planned]


def test_few_outputs_are_left_out_of_the_comparison() -> None:
    cells = [cell for path in NOTEBOOKS for cell in code_cells(read(path))]
    left_out = [cell for cell in cells if "nbval-ignore-output" in tags(cell)]
    assert len(left_out) <= 0.15 * len(cells), f"{len(left_out)} of {len(cells)}"


# --- what each lesson looks like


@each_lesson
def test_executed_in_order_without_errors(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    for cell, output in outputs(notebook):
        if output.output_type == "error":
            assert "raises-exception" in tags(cell), f"{output.ename}: {output.evalue}"
    known = {"parameters", "nbval-ignore-output", "raises-exception", REAL_MODEL_TAG}
    for cell in code_cells(notebook):
        assert set(tags(cell)) <= known, f"{tags(cell)}: tests know only {known}"
        assert "NBVAL_" not in cell.source, "use the tag, which does not show"


def test_the_machine_was_ready_when_the_outputs_were_stored() -> None:
    """nbval compares none of it: what is found differs from machine to machine."""
    shown = [texts(output) for _, output in outputs(read(NOTEBOOKS[0]))]
    assert "All ready." in str(shown)


@each_lesson
def test_size_and_measure(path: Path) -> None:
    assert path.stat().st_size < 1_000_000
    notebook = read(path)
    (exercises,) = [n for n, c in enumerate(notebook.cells) if "## Exercises" in c.source]
    assert 25 <= exercises <= 41  # one of them is for Colab only
    assert len(notebook.cells) <= 49  # with a cell a question, the recap and the way on
    prose = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    prose = re.sub(r"\]\([^)]*\)|<[^>]+>|[|#*`_-]+", " ", prose)
    assert len(prose.split()) <= 1600


@each_lesson
def test_code_is_read_without_scrolling(path: Path) -> None:
    """A screen high, and as wide as a window of 900 pixels shows: what is folded aside."""
    for cell in code_cells(read(path)):
        if not cell.metadata.get("jupyter", {}).get("source_hidden"):
            lines = cell.source.splitlines()
            assert len(lines) <= 15, f"{len(lines)} lines: {cell.source}"
            assert not [line for line in lines if len(line) > 88], cell.source


def test_boxes_can_be_read() -> None:
    """They have colours of their own, in a light theme as in a dark one."""
    cells = [cell for path in NOTEBOOKS for cell in read(path).cells]
    boxes = re.findall(r'<div class="alert[^>]*>', "".join(c.source for c in cells))
    assert len(boxes) >= 3
    for box in boxes:
        colours = re.search(r'style="color: (#\w{6}); background-color: (#\w{6})"', box)
        assert colours and contrast(colours[1], colours[2]) >= 4.5, box


@each_lesson
def test_parameters(path: Path) -> None:
    """Documented, used beyond being recorded, and not overwritten later on."""
    notebook = read(path)
    cell = parameters_cell(notebook)
    names = defaults(notebook)
    assert set(PARAMETERS) <= set(names)
    for line in cell.source.splitlines():
        assert re.search(r"  # \w", line), f"explain {line!r} in a comment"
    cells = code_cells(notebook)
    rest = [c.source for c in cells[cells.index(cell) + 1 :]]
    used: Counter[str] = Counter()
    for source in rest:
        plain = "\n".join(line for line in source.splitlines() if not re.match(r"\s*[%!]", line))
        tree = ast.parse(plain)
        recording = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "record"
        ]
        only_recorded = {id(n) for call in recording for n in ast.walk(call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id in names and id(node) not in only_recorded:
                assert isinstance(node.ctx, ast.Load), f"{node.id} is overwritten"
                used[node.id] += 1
    assert set(used) == set(names), f"never used: {set(names) - set(used)}"


@each_lesson
def test_pictures_are_described(path: Path) -> None:
    notebook = read(path)
    for _, output in outputs(notebook):
        data = output.get("data", {})
        for kind in ("image/png", "image/jpeg", "image/svg+xml"):
            assert kind not in data, "show figures with figures.show(figure, alt=…)"
    sources = [c.source for c in notebook.cells if c.cell_type == "markdown"]
    sources += [str(o.get("data", {}).get("text/html", "")) for _, o in outputs(notebook)]
    for source in sources:
        for image in re.findall(r"<img\b[^>]*>", source):
            found = re.search(r"""\balt=("([^"]*)"|'([^']*)')""", image)
            description = html.unescape((found[2] or found[3] or "") if found else "")
            assert len(description) >= 20, image[:200]
        for description in re.findall(r"!\[([^\]]*)\]", source):
            assert description.strip()


@each_lesson
def test_outputs_name_no_folder_of_a_machine(path: Path) -> None:
    for cell, output in outputs(read(path)):
        for kind, text in texts(output).items():
            found = MACHINE_PATH.search(text)
            assert found is None, f"{found} in {kind} of {cell.source[:80]!r}"


@each_lesson
def test_navigation(path: Path) -> None:
    """Previous, contents and next, at the top and at the bottom; badges that open this lesson."""
    cells = read(path).cells
    assert cells[0].source.startswith(f"# {path.name[:2]} · ")
    number, lessons = int(path.name[:2]), course.read()
    beside = [one for one in lessons[max(0, number - 1) : number + 2] if not one.planned]
    wanted = {START, *(one.notebook for one in beside)} - {path.name}
    for cell in (cells[0], cells[-1]):
        line = cell.source.strip().splitlines()[-1]
        assert set(re.findall(r"\]\(([^):]+\.ipynb)\)", line)) == wanted
        assert "contents" in line
    assert cells[0].source.strip().splitlines()[-1] == cells[-1].source.strip().splitlines()[-1]
    badges = re.findall(r"\]\((https://[^)]*\.ipynb)\)", cells[0].source)
    assert len(badges) == 2 and all(url.endswith(f"notebooks/{path.name}") for url in badges)
    for cell in cells:
        if cell.cell_type == "markdown":
            for link in re.findall(r"\]\(([^):#]+)(?:#[^)]*)?\)", cell.source):
                assert (path.parent / link).exists(), link


@each_lesson
def test_a_lesson_that_ignores_a_value_is_found_out(path: Path) -> None:
    """The stored run is what a lesson would record that takes no notice of papermill."""
    notebook = read(path)
    assert ignored(recorded(notebook), tiny(path)) == set(PARAMETERS)
    assert ignored(recorded(notebook), defaults(notebook)) == set()


@each_lesson
def test_cells_that_need_the_real_model_stored_it(path: Path) -> None:
    for cell in code_cells(read(path)):
        if REAL_MODEL_TAG in tags(cell):
            assert "make model" not in str([texts(o) for o in cell.outputs]), "stored without it"


def test_without_the_real_model_its_cells_are_run_but_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = nbformat.v4.new_code_cell("print(1)", metadata={"tags": [REAL_MODEL_TAG]})
    plain = nbformat.v4.new_code_cell("print(2)")
    lesson, folder = tmp_path / "lesson.ipynb", tmp_path / "copy"
    folder.mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=[cell, plain]), lesson)
    missing = dataclasses.replace(cards()[REAL_MODEL], name="not-here")
    monkeypatch.setitem(cards(), REAL_MODEL, missing)
    copied = code_cells(read(comparable(lesson, folder)))
    assert [("nbval-ignore-output" in tags(cell)) for cell in copied] == [True, False]


def test_a_progress_bar_is_stored_as_it_ended(tmp_path: Path) -> None:
    """Its text reaches the notebook once, when it is still empty."""
    bar = nbformat.v4.new_code_cell(
        "from tqdm.auto import tqdm\nfor _ in tqdm(range(3)):\n    pass"
    )
    lesson = tmp_path / "lesson.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[bar]), lesson)
    code = "import pathlib, sys; sys.path.insert(0, 'tools'); import outputs; "
    code += "outputs.run(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(lesson)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (output,) = read(lesson).cells[0].outputs
    assert output.data == {"text/plain": "100%|██████████| 3/3"}
