"""Each lesson states the smallest values it works with, works with them, and shows no NaN."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from classroom import course
from classroom.limits import require
from classroom.records import RECORD_TYPE
from classroom.report.execute import execute
from classroom.report.parameters import defaults
from system.errors import ParameterError

LESSONS = {path.stem[:2]: path for path in course.notebooks()}
QUICK = ("00", "01")  # the others take a minute each: `make soak`
TEXTS = {"MODEL_NAME": "course-gpt-1m", "MODEL_NAMES": ["course-gpt-1m"], "WORD": "a"}
NAN = re.compile(r"\b(nan|inf)\b", re.IGNORECASE)


def stated(number: str) -> list[ast.Call]:
    """The calls of `require` in the cell after the parameters."""
    notebook = nbformat.read(LESSONS[number], as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    place = next(i for i, c in enumerate(code) if "parameters" in c.metadata.get("tags", []))
    calls = (n for n in ast.walk(ast.parse(code[place + 1].source)) if isinstance(n, ast.Call))
    return [call for call in calls if getattr(call.func, "id", "") == "require"]


def smallest(number: str) -> dict[str, Any]:
    """Name → smallest value; a short text where text is asked for."""
    found: dict[str, Any] = {}
    for given in (keyword for call in stated(number) for keyword in call.keywords):
        name, least = str(given.arg), ast.unparse(given.value)
        text = TEXTS.get(name, "A")
        found[name] = text if least in ("str", "list") else ast.literal_eval(given.value)
    return found


def shown(notebook: nbformat.NotebookNode) -> str:
    """All that the outputs say, pictures and addresses in them left out."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    data = [output.get("data", {}) for output in outputs]
    texts = [str(output.get("text", "")) for output in outputs]
    texts += [str(one.get(kind, "")) for one in data for kind in ("text/plain", "text/html")]
    texts += [str(one.get(RECORD_TYPE, "")) for one in data]
    return re.sub(r'src="data:[^"]*"', "", "\n".join(texts))


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [pytest.param(n, marks=() if n in QUICK else pytest.mark.soak) for n in LESSONS],
)
def test_a_lesson_runs_with_its_smallest_values(number: str, tmp_path: Path) -> None:
    values = smallest(number)
    ran = tmp_path / "ran.ipynb"
    assert execute(LESSONS[number], ran, values, "", timeout=600) == ""
    notebook = nbformat.read(ran, as_version=4)
    raised = [
        f"{output.ename}: {output.evalue}"
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "error" and "raises-exception" not in cell.metadata.tags
    ]
    assert raised == []
    assert all(c.execution_count for c in notebook.cells if c.cell_type == "code")
    found = NAN.search(text := shown(notebook))
    assert not found, text[max(0, found.start() - 200) : found.end() + 50]


@pytest.mark.parametrize("number", list(LESSONS))
def test_a_smaller_value_is_refused_by_name(number: str) -> None:
    """By the lesson's own line, for each of its parameters."""
    least = smallest(number)
    shipped = defaults(nbformat.read(LESSONS[number], as_version=4))
    assert set(least) == set(shipped), "every parameter has its smallest value"
    line = ";".join(ast.unparse(call) for call in stated(number))
    exec(line, {"require": require} | shipped)
    exec(line, {"require": require} | least)
    for name, value in least.items():
        worse = value - 1 if isinstance(value, int | float) else type(value)()
        with pytest.raises(ParameterError, match=f"^{name}="):
            exec(line, {"require": require} | shipped | {name: worse})
