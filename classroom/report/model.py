"""What a report knows; `report.json` is these classes, written and read by pydantic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from system.errors import ParameterError
from system.textfiles import read_text

REPORT_FILE = "report.json"
Status = Literal["passed", "failed", "not run"]
Value = bool | int | float | str


class Cell(BaseModel):
    """One executed code cell.

    Attributes:
        number: its place among the code cells, from 1: what the page shows as In [n].
        anchor: its place in the lesson's page, for links.
        heading: the section that it stands in.
        seconds: how long it ran.
    """

    number: int
    anchor: str
    heading: str
    seconds: float


class Failure(BaseModel):
    """The cell that a run ended in: its source and its traceback, without colours."""

    cell: Cell
    source: str
    traceback: str


class Record(BaseModel):
    """What one call of `classroom.records.record` stored, and the number of its cell."""

    cell: int
    values: dict[str, Value]


class Run(BaseModel):
    """One lesson with one set of values.

    Attributes:
        lesson: file name without its ending.
        title: the lesson's own title.
        values: the parameters that were set, by name; others keep the lesson's defaults.
        name: file name, without ending, of its notebook and its page in the report.
        source: the lesson's notebook; not stored.
        status: "not run" until it has ended.
        reason: why it did not pass, in one line.
        seconds: the time the lesson took, its kernel's start included.
    """

    lesson: str
    title: str
    values: dict[str, Any]
    name: str
    source: Path = Field(default=Path(), exclude=True)
    status: Status = "not run"
    reason: str = ""
    seconds: float | None = None
    failure: Failure | None = None
    cells: list[Cell] = []
    records: list[Record] = []

    @property
    def label(self) -> str:
        """The values in one line: "MODEL_NAME=course-gpt-1m, SEED=1"; "defaults" if none."""
        return label(self.values)

    @property
    def key(self) -> tuple[str, str]:
        """What makes it the same run in two reports: the lesson and the values."""
        return self.lesson, json.dumps(self.values, sort_keys=True)


class Report(BaseModel):
    """A whole report.

    Attributes:
        started: ISO date and time.
        stopped: why it ended early; empty while it runs and when it is whole.
        machine: facts about the machine, each in words.
        versions: packages and their versions.
        parameters: the values that were asked for, by name.
        timeout: seconds that a lesson may take.
        runs: in the order in which they are run.
    """

    started: str
    stopped: str = ""
    machine: dict[str, str]
    versions: dict[str, str]
    parameters: dict[str, list[Any]]
    timeout: float
    runs: list[Run]

    def count(self, status: Status) -> int:
        """How many runs have this status."""
        return sum(run.status == status for run in self.runs)


def label(values: dict[str, Any]) -> str:
    """Values in one line, as they are given on the command line."""
    return ", ".join(f"{name}={value}" for name, value in values.items()) or "defaults"


def read_report(path: Path) -> Report:
    """An earlier report.

    Args:
        path: its folder, or its report.json.

    Raises:
        ParameterError: nothing there, or not a report.
    """
    file = path / REPORT_FILE if path.is_dir() else path
    allowed = f"the folder or the {REPORT_FILE} of an earlier report"
    try:
        return Report.model_validate_json(read_text(file))
    except (OSError, ValidationError) as error:
        raise ParameterError("compare", str(path), allowed) from error
