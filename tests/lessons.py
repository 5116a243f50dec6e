"""What the tests of lessons share: reading a notebook, other values for it, comparing it.

Two runs of each lesson stand in every run of the tests (`test_lesson_runs.py`): as stored, with
its memory watched, and with its smallest values. Whatever else asks about a lesson, asks these.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode

from classroom import course
from classroom.records import RECORD_TYPE
from helpers.models import cards
from system.environment import PACKAGES
from tests.conftest import ROOT, copy_packages

NOTEBOOKS = course.notebooks()
SANITIZE = ROOT / "tests" / "nbval_sanitize.cfg"
CELL_SECONDS = 600
# A cell with this tag shows the model that `make model` fetches, or says that it is not there:
# its stored outputs are those with the model, and only with it are they compared.
REAL_MODEL, REAL_MODEL_TAG = "smollm2-135m", "needs-smollm2"
# A folder of the machine that something was made on.
MACHINE_PATH = re.compile(r"(/home/|/root/|/tmp/|/work/|/Users/|\b[A-Z]:\\)[^\s\"']*")
PARAMETERS = {"MODEL_NAME": "model", "SEED": "seed", "MAX_NEW_TOKENS": "new_tokens"}  # recorded as
OTHER_MODEL, OTHER_SEED = "course-gpt-1m", 11
TEXTS = {"MODEL_NAME": OTHER_MODEL, "MODEL_NAMES": [OTHER_MODEL], "WORD": "a"}
TEXTS |= {"DRAFT_NAME": OTHER_MODEL}
NAN = re.compile(r"\b(nan|inf)\b", re.IGNORECASE)
each_lesson = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]


def tags(cell: NotebookNode) -> list[str]:
    return list(cell.metadata.get("tags", []))


def outputs(notebook: NotebookNode) -> Iterator[tuple[NotebookNode, NotebookNode]]:
    for cell in code_cells(notebook):
        for output in cell.outputs:
            yield cell, output


def contrast(text: str, ground: str) -> float:
    """The ratio of luminances of two colours as #rrggbb, from 1 to 21 (WCAG 2.2, 1.4.3)."""
    bright = []
    for colour in (text, ground):
        shares = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares]
        bright.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)
    return max(bright) / min(bright)


def texts(output: NotebookNode) -> dict[str, str]:
    """Everything that can be read in an output, without the pixels of pictures."""
    found = {k: str(v) for k, v in output.get("data", {}).items() if not k.startswith("image/")}
    found["stream"] = output.get("text", "")
    found["traceback"] = "\n".join(output.get("traceback", []))
    return {k: re.sub(r"base64,[A-Za-z0-9+/=]+", "base64,", v) for k, v in found.items()}


def needs_real_model(notebook: NotebookNode) -> bool:
    """Whether a lesson loads the model that `make model` fetches."""
    return any(REAL_MODEL_TAG in tags(cell) for cell in code_cells(notebook))


def parameters_cell(notebook: NotebookNode) -> NotebookNode:
    (cell,) = [c for c in code_cells(notebook) if "parameters" in tags(c)]
    return cell


def defaults(notebook: NotebookNode) -> dict[str, Any]:
    """The parameters' values as the lesson stores them."""
    found = {}
    for statement in ast.parse(parameters_cell(notebook).source).body:
        assert isinstance(statement, ast.Assign), "the parameters cell holds only assignments"
        (target,) = statement.targets
        assert isinstance(target, ast.Name)
        found[target.id] = ast.literal_eval(statement.value)
    return found


def recorded(notebook: NotebookNode) -> dict[str, Any]:
    """Every value that the lesson recorded."""
    values: dict[str, Any] = {}
    for _, output in outputs(notebook):
        values |= output.get("data", {}).get(RECORD_TYPE, {})
    return values


def ignored(values: dict[str, Any], injected: dict[str, Any]) -> set[str]:
    """The parameters that recorded values do not follow; a text may end before its length."""
    wrong = {
        name
        for name in ("MODEL_NAME", "SEED")
        if values.get(PARAMETERS[name]) != injected[name]
    }  # fmt: skip
    if not 0 < values.get("new_tokens", 0) <= injected["MAX_NEW_TOKENS"]:
        wrong.add("MAX_NEW_TOKENS")
    return wrong


def stated(path: Path) -> list[ast.Call]:
    """The calls of `require` in the cell after the parameters."""
    notebook = read(path)
    code = code_cells(notebook)
    place = code.index(parameters_cell(notebook))
    calls = (n for n in ast.walk(ast.parse(code[place + 1].source)) if isinstance(n, ast.Call))
    return [call for call in calls if getattr(call.func, "id", "") == "require"]


def smallest(path: Path) -> dict[str, Any]:
    """Name → smallest value; a short text where text is asked for."""
    found: dict[str, Any] = {}
    for given in (keyword for call in stated(path) for keyword in call.keywords):
        name, least = str(given.arg), ast.unparse(given.value)
        text = TEXTS.get(name, "A")
        found[name] = text if least in ("str", "list") else ast.literal_eval(given.value)
    return found


def tiny(path: Path) -> dict[str, Any]:
    """Another model and seed, and the smallest sizes that the lesson works with."""
    return smallest(path) | {"MODEL_NAME": OTHER_MODEL, "SEED": OTHER_SEED}


def shown(notebook: NotebookNode) -> str:
    """All that the outputs say, pictures and addresses in them left out."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    data = [output.get("data", {}) for output in outputs]
    texts = [str(output.get("text", "")) for output in outputs]
    texts += [str(one.get(kind, "")) for one in data for kind in ("text/plain", "text/html")]
    texts += [str(one.get(RECORD_TYPE, "")) for one in data]
    return re.sub(r'src="data:[^"]*"', "", "\n".join(texts))


def course_copy(folder: Path, without: str = "") -> Path:
    """The course in another folder: packages copied, the rest linked, one model left out."""
    copy_packages(folder)
    (folder / "models").mkdir()
    for path in ROOT.iterdir():
        if path.name not in (*PACKAGES, "models") and not path.name.startswith("."):
            (folder / path.name).symlink_to(path)
    for model in (ROOT / "models").iterdir():
        if model.name != without:
            (folder / "models" / model.name).symlink_to(model)
    return folder


def comparable(path: Path, folder: Path) -> Path:
    """The lesson as nbval can compare it here: without the real model, not the cells that show it.

    Every cell still runs, so a cell that fails where the model is missing is found out.
    """
    notebook = read(path)
    if cards()[REAL_MODEL].here or not needs_real_model(notebook):
        return path
    for cell in code_cells(notebook):
        if REAL_MODEL_TAG in tags(cell):
            cell.metadata["tags"] = [*tags(cell), "nbval-ignore-output"]
    copy = folder / path.name
    nbformat.write(notebook, copy)
    return copy


def nbval(path: Path, folder: Path, *options: str, **environment: str) -> Any:
    """nbval on one notebook, strictly, from another folder and in a process of its own."""
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env"]
    command += [f"--nbval-cell-timeout={CELL_SECONDS}", "--nbval-sanitize-with", str(SANITIZE)]
    command += ["-q", "-p", "no:cacheprovider", *options, str(path)]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True
    )
