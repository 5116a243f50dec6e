"""What an executed notebook tells: passed or not, times, tracebacks, recorded values."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from nbconvert.filters import strip_ansi
from nbformat import NotebookNode

from classroom.records import RECORD_TYPE
from classroom.report.model import Cell, Failure, Record, Run, Value

_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


def read_notebook(path: Path) -> NotebookNode | None:
    """The executed notebook without papermill's red notes; None if it was never written whole."""
    import nbformat
    from papermill.execute import remove_error_markers

    try:
        return remove_error_markers(nbformat.read(path, as_version=4))
    except (OSError, ValueError, KeyError, AttributeError):
        return None


def collect(run: Run, notebook: NotebookNode | None, problem: str, seconds: float) -> None:
    """Fill in a run that has ended.

    Args:
        run: filled in place.
        notebook: as executed, or None.
        problem: why the notebook was not run to its end; empty if it was, or if a cell raised.
        seconds: how long it took.
    """
    run.seconds = round(seconds, 2)
    run.status, run.reason = ("failed", problem) if problem else ("passed", "")
    if notebook is None:
        run.status, run.reason = "failed", problem or "no executed notebook was written"
        return
    raised = None
    last = None
    heading = ""
    number = 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = (_HEADING.findall(cell.source) or [heading])[-1]
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        number += 1
        facts = cell.metadata.get("papermill", {})
        if not facts.get("start_time"):
            continue
        took = round(facts.get("duration") or 0.0, 3)
        last = Cell(number=number, anchor=f"cell-id={cell.id}", heading=heading, seconds=took), cell
        run.cells.append(last[0])
        run.records += [Record(cell=number, values=values) for values in _records(cell)]
        if facts.get("exception"):
            raised = last
    if raised:
        run.status, run.reason = "failed", run.reason or _error_line(raised[1])
    if run.status == "failed" and last:
        run.failure = _failure(*(raised or last))


def _records(cell: NotebookNode) -> list[dict[str, Value]]:
    """The values that a cell recorded, one dictionary a call."""
    found = (output.get("data", {}).get(RECORD_TYPE) for output in cell.outputs)
    return [{str(k): _plain(v) for k, v in values.items()} for values in found if values]


def _plain(value: Any) -> Value:
    """As recorded; text for what is no finite number and for the rest."""
    if isinstance(value, float) and not math.isfinite(value):
        return "not measured"
    return value if isinstance(value, bool | int | float | str) else str(value)


def _error_line(cell: NotebookNode) -> str:
    """The cell's last error in one line."""
    errors = [output for output in cell.outputs if output.output_type == "error"]
    if not errors:
        return "a cell raised"
    lines = str(errors[-1].evalue).strip().splitlines() or [""]
    return f"{errors[-1].ename}: {lines[0]}" if lines[0] else str(errors[-1].ename)


def _failure(place: Cell, cell: NotebookNode) -> Failure:
    lines = [
        line
        for output in cell.outputs
        if output.output_type == "error"
        for line in output.traceback
    ]
    return Failure(cell=place, source=cell.source, traceback=strip_ansi("\n".join(lines)))
