"""The report's pages: `index.html` and one page a lesson, each a file that needs no other."""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from nbformat import NotebookNode

from classroom.records import RECORD_TYPE
from classroom.report import compare, figures
from classroom.report.model import REPORT_FILE, Cell, Report, Run, Value, label
from classroom.report.parameters import combinations

TEMPLATES = Path(__file__).parent
SLOWEST = 10
_REMOTE_IMAGE = re.compile(r"!\[([^\]]*)\]\(https?://[^)]*\)")
_LESSON_LINK = re.compile(r"\[([^\]]*)\]\(([\w./-]+)\.(?:ipynb|md)(#[^)]*)?\)")


@dataclass
class Row:
    """One record of one run."""

    run: Run
    values: list[Value]


@dataclass
class Table:
    """Records of one lesson that have the same names.

    Attributes:
        names: the columns.
        rows: one a record.
        numeric: for each column, whether all its values are numbers.
        figures: HTML images of the columns that differ from row to row.
    """

    names: tuple[str, ...]
    rows: list[Row] = field(default_factory=list)
    numeric: list[bool] = field(default_factory=list)
    figures: list[Markup] = field(default_factory=list)


def write_index(report: Report, folder: Path, old: Report | None) -> None:
    """Write report.json and index.html; whoever ends the program, both are whole files.

    Args:
        report: as far as it is.
        folder: the report's folder.
        old: an earlier report to show changes against.
    """
    _replace(folder / REPORT_FILE, report.model_dump_json(indent=1))
    _replace(folder / "index.html", index_page(report, old))


def index_page(report: Report, old: Report | None) -> str:
    """The HTML of the report."""
    columns = combinations(report.parameters)
    changed = compare.changes(report, old) if old else []
    timed = [run for run in report.runs if run.status != "not run"]
    lessons = list(dict.fromkeys((run.lesson, run.title) for run in report.runs))
    by_lesson = [(title, [r for r in report.runs if r.lesson == name]) for name, title in lessons]
    cells = [(run, cell) for run in timed for cell in run.cells]
    bars = tuple((_short_label(r, report), r.seconds or 0.0, r.status == "passed") for r in timed)
    return _environment().get_template("index.html.j2").render(
        report=report,
        old=old,
        passed=report.count("passed"),
        failed=report.count("failed"),
        missing=[run for run in report.runs if run.status == "not run"],
        seconds=sum(run.seconds or 0.0 for run in timed),
        columns=[label(values) for values in columns],
        matrix=[
            {"title": title, "cells": _spans([_run_for(values, runs) for values in columns])}
            for title, runs in by_lesson
        ],
        turned=_turned(report, old),
        setup=_setup_changes(report, old),
        changed=changed,
        noise=f"{compare.NOISE_SHARE:.0%} and {compare.NOISE_SECONDS:g} s".replace("%", " %"),
        timed=timed,
        time_figure=Markup(figures.time_figure(bars)),
        slowest=sorted(cells, key=_seconds, reverse=True)[:SLOWEST],
        recorded=[
            {"title": title, "tables": tables}
            for title, runs in by_lesson
            if (tables := record_tables(runs))
        ],
        settings=_settings(report),
    )  # fmt: skip


def record_tables(runs: list[Run]) -> list[Table]:
    """The records of one lesson's runs, those with the same names in one table."""
    tables: dict[tuple[str, ...], Table] = {}
    for run in runs:
        for record in run.records:
            # Text first: it names the row. (Notebooks keep names in alphabetical order.)
            names = tuple(sorted(record.values, key=lambda n: _is_number(record.values[n])))
            table = tables.setdefault(names, Table(names))
            table.rows.append(Row(run, [record.values[name] for name in names]))
    for table in tables.values():
        table.numeric = [all(map(_is_number, c)) for c in _columns(table)]
        table.figures = _value_figures(table, several_runs=len(runs) > 1)
    return list(tables.values())


def lesson_page(notebook: NotebookNode, run: Run, pages: set[str]) -> str:
    """The HTML of an executed lesson, with no script, font or picture from elsewhere.

    Args:
        notebook: as executed; it is changed.
        run: what it was.
        pages: file names, without ending, of all pages in the report, for links.
    """
    from nbconvert import HTMLExporter

    notebook.metadata.pop("widgets", None)
    suffix = run.name.removeprefix(run.lesson)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _REMOTE_IMAGE.sub(r"\1", cell.source)
            cell.source = _LESSON_LINK.sub(
                lambda link: _page_link(link, suffix, pages), cell.source
            )
        elif cell.cell_type == "code":  # records are data: nothing to draw
            cell.outputs = [o for o in cell.outputs if set(o.get("data", {})) != {RECORD_TYPE}]
    exporter = HTMLExporter(
        raw_template=(TEMPLATES / "lesson.html.j2").read_text(encoding="utf-8"), embed_images=True
    )
    facts = {
        "title": run.title,
        "label": run.label,
        "reason": run.reason,
        "anchor": run.failure.cell.anchor if run.failure else "",
    }
    resources = {
        "metadata": {"name": f"{run.title} ({run.label})", "path": str(run.source.parent)},
        "report": facts,
    }
    page, _ = exporter.from_notebook_node(notebook, resources=resources)
    return str(page)


def _page_link(link: re.Match[str], suffix: str, pages: set[str]) -> str:
    """A link to another lesson as one to its page in the report, or as plain text."""
    page = next((p for p in (link[2] + suffix, link[2]) if p in pages), None)
    return f"[{link[1]}]({page}.html)" if page else link[1]


def _value_figures(table: Table, several_runs: bool) -> list[Markup]:
    """Bars for the numeric columns that differ and are not just a parameter of the run."""
    texts = [place for place, numeric in enumerate(table.numeric) if not numeric]
    labels = []
    for row in table.rows:
        said = [str(row.values[place]) for place in texts if len(str(row.values[place])) < 40]
        given = row.run.label if several_runs and row.run.values else ""
        known = {str(value) for value in row.run.values.values()}
        labels.append(
            ", ".join([*([given] if given else []), *(s for s in said if s not in known)])
        )
    chosen = [
        (name.replace("_", " "), tuple(column))
        for name, column, numeric in zip(table.names, _columns(table), table.numeric, strict=True)
        if numeric and len(set(column)) > 1 and not _is_parameter(table, column)
    ]
    groups = [chosen[i : i + figures.PANELS] for i in range(0, len(chosen), figures.PANELS)]
    return [Markup(figures.value_figure(tuple(labels), tuple(group))) for group in groups]


def _columns(table: Table) -> list[list[Any]]:
    return [list(column) for column in zip(*(row.values for row in table.rows), strict=True)]


def _is_parameter(table: Table, column: list[Any]) -> bool:
    """Whether a column only repeats what the runs were given."""
    pairs = zip(table.rows, column, strict=True)
    return all(value in row.run.values.values() for row, value in pairs)


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _run_for(values: dict[str, Any], runs: list[Run]) -> Run:
    """The run of a lesson that belongs under these values: it may have only some of them."""
    return next(run for run in runs if all(values[k] == v for k, v in run.values.items()))


def _spans(runs: list[Run]) -> list[tuple[Run, int]]:
    """Each run with the number of neighbouring columns that it fills."""
    groups = (list(same) for _, same in itertools.groupby(runs, key=lambda run: run.name))
    return [(group[0], len(group)) for group in groups]


def _turned(report: Report, old: Report | None) -> dict[tuple[str, str], str]:
    """The earlier status of the runs whose status changed."""
    before = {run.key: run.status for run in old.runs} if old else {}
    return {
        run.key: before[run.key]
        for run in report.runs
        if "not run" not in (run.status, before.get(run.key, "not run"))
        and before[run.key] != run.status
    }


def _setup_changes(report: Report, old: Report | None) -> list[str]:
    """Where machine and versions differ from those of the earlier report."""
    if old is None:
        return []
    now, before = {**report.machine, **report.versions}, {**old.machine, **old.versions}
    return [
        f"{name}: {before.get(name, '–')} → {now.get(name, '–')}"
        for name in dict.fromkeys([*now, *before])
        if now.get(name) != before.get(name)
    ]


def _settings(report: Report) -> dict[str, str]:
    given = {name: ", ".join(map(str, values)) for name, values in report.parameters.items()}
    return {
        "Parameters": "; ".join(f"{k} = {v}" for k, v in given.items()) or "the lessons' defaults",
        "Time limit": f"{report.timeout:g} s a lesson",
        "All data": f"{REPORT_FILE}, beside this page",
    }


def _short_label(run: Run, report: Report) -> str:
    return f"{run.lesson} · {run.label}" if report.parameters else run.lesson


def _seconds(place: tuple[Run, Cell]) -> float:
    return place[1].seconds


@cache
def _environment() -> Environment:
    """Jinja with the filters of the index."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters.update(
        time=_time,
        value=lambda value: f"{value:.6g}" if isinstance(value, float) else value,
        words=lambda name: name.replace("_", " "),
        breaks=lambda text: escape(text).replace("=", Markup("=<wbr>")),
        day=lambda moment: datetime.fromisoformat(moment).strftime("%d %B %Y").lstrip("0"),
        minute=lambda m: datetime.fromisoformat(m).strftime("%d %B %Y, %H:%M").lstrip("0"),
    )
    return environment


def _time(seconds: float | None) -> str:
    """A duration for people: "2.4 s", "3 min 12 s"; empty if there is none."""
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds >= 0.1 else f"{seconds * 1000:.0f} ms"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def _replace(path: Path, text: str) -> None:
    """Write a file so that a reader never sees half of it."""
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
