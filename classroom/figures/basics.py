"""Bars and lines that any lesson may use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from classroom.figures.style import BLUE, ORANGE, from_zero, label, new_figure, show
from system.markup import NOT_MEASURED

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def bar_list(
    labels: Sequence[str],
    values: Sequence[float],
    axis_label: str,
    number: str = "{:,.1f}",
    log: bool = False,
    highlight: str = "",
) -> Figure:
    """Horizontal bars with their values written beside them (lesson 00).

    Args:
        labels: one a bar, from top to bottom.
        values: their lengths, in the unit that `axis_label` names.
        axis_label: quantity and unit, "size on disk (MB)".
        number: how a value is written; one that was not measured is a dash.
        log: a logarithmic axis, for values of very different size (all above 0).
        highlight: the label of the bar that is drawn in orange.

    Raises:
        ValueError: not one value a label, or none at all.
    """
    if not labels or len(labels) != len(values):
        raise ValueError(f"values: one a label is needed, got {len(values)} for {len(labels)}")
    figure, (axes,) = new_figure(height=0.8 + 0.38 * len(labels))
    colours = [ORANGE if name == highlight else BLUE for name in labels]
    known = [value if math.isfinite(value) else 0.0 for value in values]
    bars = axes.barh(range(len(labels)), known, color=colours, height=0.7)
    texts = [number.format(v) if math.isfinite(v) else NOT_MEASURED for v in values]
    axes.bar_label(bars, texts, padding=4)
    axes.set_yticks(range(len(labels)), [label(name) for name in labels])
    axes.invert_yaxis()
    axes.set_xlabel(axis_label)
    axes.grid(visible=False)
    if log:
        axes.set_xscale("log")
    axes.margins(x=0.14)
    return figure


def grouped_bars(table: pd.DataFrame, x_label: str, most: float | None = None) -> Figure:
    """Horizontal bars, one group a row and one colour a column, values beside them (lesson 01).

    Args:
        table: numbers; the index names the groups, the columns make the legend.
        x_label: with its unit.
        most: where the axis ends, such as 100 for percent.
    """
    figure, (axes,) = new_figure(height=1.3 + (0.2 + 0.2 * len(table.columns)) * len(table))
    height = 0.8 / len(table.columns)
    for n, column in enumerate(table.columns):
        places = [row + n * height for row in range(len(table))]
        bars = axes.barh(places, table[column], height * 0.92, label=label(column))
        axes.bar_label(bars, [f"{value:,.0f}" for value in table[column]], padding=3)
    middles = [row + height * (len(table.columns) - 1) / 2 for row in range(len(table))]
    axes.set_yticks(middles, [label(name) for name in table.index])
    axes.invert_yaxis()
    axes.set_xlabel(x_label)
    axes.grid(visible=False)
    axes.margins(x=0.1)
    if most is not None:
        axes.set_xlim(0, 1.08 * most)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5, frameon=False)
    return figure


def stacked_bars(
    table: pd.DataFrame, x_label: str, alt: str, points: pd.Series | None = None
) -> HTML:
    """Parts that add up: one horizontal bar a row of the table, one colour a column.

    Args:
        table: numbers; the index names the bars, the columns the parts.
        x_label: with its unit.
        alt: what the figure shows.
        points: a value for each bar, drawn as a mark (a measurement, say); its name is
            the legend's.
    """
    figure, (axes,) = new_figure(height=1.4 + 0.45 * len(table))
    rows = list(range(len(table)))
    left = [0.0] * len(table)
    for part in table.columns:
        axes.barh(rows, table[part], left=left, height=0.6, label=label(part))
        left = [start + width for start, width in zip(left, table[part], strict=True)]
    if points is not None:
        axes.plot(points, rows, "D", color="black", markersize=7, label=label(points.name))
    axes.set_yticks(rows, [label(name) for name in table.index])
    axes.invert_yaxis()
    axes.set_xlabel(x_label)
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    width = sum(len(text) for text in axes.get_legend_handles_labels()[1])
    figure.legend(loc="outside lower center", ncols=5 if width < 70 else 3)
    return show(figure, alt)


def lines(axes: Axes, table: pd.DataFrame, x_label: str, y_label: str) -> None:
    """One line with points a column over the table's index, both axes from 0. (Lessons 02, 03.)

    Args:
        axes: where to draw.
        table: numbers; the column names make the legend.
        x_label: with its unit.
        y_label: with its unit.
    """
    for column in table.columns:
        axes.plot(table.index, table[column], "o-", label=label(column))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_xlim(left=0)
    from_zero(axes)
    axes.legend()


def line_figure(
    table: pd.DataFrame, x_label: str, y_label: str, alt: str, log: bool = False
) -> HTML:
    """A figure of lines with points, one a column, over the table's index.

    Args:
        table: numbers; the column names are the legend.
        x_label: with its unit.
        y_label: with its unit.
        alt: what the figure shows.
        log: a logarithmic vertical axis (all values above 0).
    """
    figure, (axes,) = new_figure(height=3.0)
    lines(axes, table, x_label, y_label)
    if len(table.columns) == 1 and (legend := axes.get_legend()):
        legend.remove()  # the axis says it already
    if log:
        axes.set(
            yscale="log", ylim=(0.8 * float(table.min().min()), 1.5 * float(table.max().max()))
        )
    return show(figure, alt)
