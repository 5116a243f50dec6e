"""Each lesson states the smallest values it works with, works with them, and shows no NaN."""

from __future__ import annotations

import ast
import importlib
import math
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
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


# --- what was not measured ------------------------------------------------------------------


@pytest.mark.parametrize("number", list(LESSONS))
def test_a_stored_lesson_shows_no_nan(number: str) -> None:
    text = shown(nbformat.read(LESSONS[number], as_version=4))
    found = NAN.search(text)
    assert len(text) > 1000 and not found, found and text[max(0, found.start() - 200) :][:300]


MISSING = [math.nan, math.inf, -math.inf, np.float32("nan"), None, pd.NaT, pd.NA]


@pytest.mark.parametrize("missing", MISSING, ids=repr)
@pytest.mark.parametrize("rows", [1, 3, 100])
def test_a_table_shows_a_dash_for_what_was_not_measured(missing: Any, rows: int) -> None:
    """As HTML and as text, whole or shortened, and everything else as pandas shows it."""
    from IPython.core.interactiveshell import InteractiveShell

    from system.markup import guard_tables, left_aligned

    whole = pd.DataFrame({"model": [f"m{i}" for i in range(rows)], "speed": [1.0] * rows})
    table = whole.copy()
    for column, value in (("peak", 2.5), ("text", "nan and inf are words")):
        whole[column] = [value] * rows
        table[column] = [missing, *[value] * (rows - 1)]
    shell = InteractiveShell.instance()
    try:
        guard_tables()
        assert shell.display_formatter is not None
        show = shell.display_formatter.format
        for kind, plain in (("text/html", whole._repr_html_()), ("text/plain", repr(whole))):
            assert show(whole)[0][kind] == plain
            found = show(table)[0][kind]
            assert found.count("–") == 2, found
            assert not re.search(r"nan\b(?! and)|\binf\b(?! are)|None|NaT|<NA>", found, re.I), found
        for column in ("speed", "text"):
            found = show(table[column])[0]["text/plain"]
            assert found.count("–") == (column == "text"), found
        assert left_aligned(table).data.count("–") == 2
    finally:
        InteractiveShell.clear_instance()


def test_the_command_line_of_compare_shows_no_nan(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One model measured, with texts too short for a speed, and one that failed."""
    comparing = importlib.import_module("helpers.compare")
    measured = {"model": "short", "load_s": 0.5, "peak_mb": 400.0}
    failed = {"model": "failed", "status": "killed", "reason": "the system ended it"}
    table = comparing._frame([measured, failed])
    monkeypatch.setattr(comparing, "compare", lambda *_, **__: table)
    file = tmp_path / "kept.json"
    monkeypatch.setattr(sys, "argv", ["compare", "short", "failed", "--json", str(file)])
    assert comparing.main() == 1
    said = capsys.readouterr().out
    assert "short" in said and "–" in said and not NAN.search(said), said
    assert not NAN.search(file.read_text(encoding="utf-8"))


def test_a_monitor_has_a_number_for_every_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    """Phases of no length, and a clock that stands still while they last."""
    from helpers import monitor as monitoring

    with monitoring.ResourceMonitor(interval=0.01) as monitor:
        for n in range(30):
            with monitor.phase(f"outer {n}"), monitor.phase("inner"):
                pass
        now = monitoring.time.perf_counter()
        with monkeypatch.context() as stopped:
            stopped.setattr(monitoring.time, "perf_counter", lambda: now)
            with monitor.phase("no time at all"):
                pass
    phases = monitor.phases()
    assert len(phases) == 61 and phases.notna().all(axis=None)
    assert "gpu_mb" in monitor.frame() or monitor.frame().notna().all(axis=None)


def test_a_monitor_that_sees_the_gpu_begin_has_no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readings as torch gives them: nothing, until the first use of the card."""
    from helpers import monitor as monitoring

    readings = iter([(math.nan,) * 3] * 2 + [(5.0, 8.0, math.nan)] * 1000)
    monkeypatch.setattr(monitoring, "read_gpu", lambda: next(readings))
    with monitoring.ResourceMonitor(interval=60) as monitor:
        for _ in range(3):
            with monitor.phase("use"):
                pass
    frame = monitor.frame()
    assert list(frame["gpu_mb"][:4]) == [0, 0, 5, 5] and list(frame["gpu_reserved_mb"][:2]) == [
        0,
        0,
    ]
    assert "gpu_percent" not in frame and frame.notna().all(axis=None)


def test_figures_write_no_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """No letter of a figure says NaN, whichever measure a model lacks."""
    from classroom import figures
    from helpers.compare import _frame

    drawn: list[Any] = []
    for module in ("basics", "comparison"):
        place = importlib.import_module(f"classroom.figures.{module}")
        monkeypatch.setattr(place, "show", lambda figure, alt: drawn.append(figure))
    numbers = {"parameters_m": 1.0, "tokens_per_s": 5.0, "tokens_low": 4.0, "tokens_high": 6.0}
    numbers |= {"bits_per_byte": 1.5, "peak_mb": 400.0, "load_s": 0.1}
    rows = [numbers | {"model": "whole"}]
    rows += [
        {k: v for k, v in numbers.items() if k != name} | {"model": name}
        for name in ("tokens_per_s", "bits_per_byte", "load_s")
    ]
    table = _frame(rows)
    figures.frontier(table, "quality against speed")
    figures.compare_bars(table, {"load_s": "load (s)", "tokens_per_s": "speed"}, "all of them")
    drawn.append(figures.bar_list(["a", "b", "c"], [1.0, math.nan, math.inf], "speed (tokens/s)"))
    for figure in drawn:
        figure.canvas.draw()
        texts = [text.get_text() for text in figure.findobj(match=lambda o: hasattr(o, "get_text"))]
        assert texts and not [text for text in texts if NAN.search(text)], texts
    assert texts.count("–") == 2


def test_a_load_of_one_token_answers_shows_no_nan() -> None:
    from serving.client.load_report import Load, Report, Result

    report = Report(Load("http://127.0.0.1:1"), 2.0, [Result(0.0, 1.0, 1.0, 1), Result(0, 1)])
    assert not NAN.search(report.table()) and not re.search("NaN|Infinity", report.to_json())
