"""Each lesson states the smallest values it works with, and what it shows has no NaN.

That it runs with them, and shows none then either, `test_lesson_runs.py` sees.
"""

from __future__ import annotations

import ast
import importlib
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from classroom.limits import require
from system.errors import ParameterError
from tests.lessons import NAN, defaults, each_lesson, read, shown, smallest, stated


@each_lesson
def test_a_smaller_value_is_refused_by_name(path: Path) -> None:
    """By the lesson's own line, for each of its parameters."""
    least = smallest(path)
    shipped = defaults(read(path))
    assert set(least) == set(shipped), "every parameter has its smallest value"
    line = ";".join(ast.unparse(call) for call in stated(path))
    exec(line, {"require": require} | shipped)
    exec(line, {"require": require} | least)
    for name, value in least.items():
        worse = value - 1 if isinstance(value, int | float) else type(value)()
        with pytest.raises(ParameterError, match=f"^{name}="):
            exec(line, {"require": require} | shipped | {name: worse})


# --- what was not measured ------------------------------------------------------------------


@each_lesson
def test_a_stored_lesson_shows_no_nan(path: Path) -> None:
    text = shown(read(path))
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
