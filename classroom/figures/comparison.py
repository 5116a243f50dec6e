"""Several models side by side. (Lesson 05.)"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from classroom.figures.style import COLOURS, label, new_figure, show

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML

LARGEST_AREA = 1500.0  # of a bubble, in square points


def frontier(table: pd.DataFrame, alt: str, beaten: Sequence[str] = ()) -> HTML:
    """Quality against speed, one bubble a model, its area in proportion to its parameters.

    Args:
        table: columns model, tokens_per_s, tokens_low, tokens_high, bits_per_byte, peak_mb,
            parameters_m. Models whose speed or quality was not measured are left out.
        alt: what the figure shows.
        beaten: the models that are not on the frontier; drawn hollow, off its line.
    """
    figure, (axes,) = new_figure(height=4.4)
    table = table.dropna(subset=["tokens_per_s", "bits_per_byte"])
    fastest = float(table["tokens_high"].max())
    area = LARGEST_AREA / float(table["parameters_m"].max())
    best = table[~table["model"].isin(beaten)].sort_values("tokens_per_s")
    axes.plot(best["tokens_per_s"], best["bits_per_byte"], color="#888888", ls="--", zorder=1)
    for n, row in enumerate(table.to_dict("records")):
        colour = COLOURS[n % len(COLOURS)]
        spread = [
            [row["tokens_per_s"] - row["tokens_low"]],
            [row["tokens_high"] - row["tokens_per_s"]],
        ]
        at = (row["tokens_per_s"], row["bits_per_byte"])
        axes.errorbar(*at, xerr=spread, color=colour, capsize=4, zorder=2)
        size = area * row["parameters_m"]
        hollow = row["model"] in beaten
        axes.scatter(
            *at, s=size, facecolor="white" if hollow else colour, edgecolor=colour, linewidth=1.6,
            alpha=0.85, zorder=3, clip_on=False,
        )  # fmt: skip
        left = at[0] < 0.2 * fastest
        radius = (size / math.pi) ** 0.5  # points
        axes.annotate(
            f"{label(row['model'])}\n{row['parameters_m']:.3g}M, {row['peak_mb']:.0f} MB", at,
            xytext=(radius + 6, 0) if left else (0, -30 if hollow else radius + 8),
            textcoords="offset points", fontsize=9, zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
            ha="left" if left else "center", va="center" if left else "bottom",
        )  # fmt: skip
    axes.set_xlabel("speed (tokens/s), whiskers: slowest and fastest run")
    axes.set_ylabel("held-out bits per byte (lower is better)")
    axes.set_xlim(0, 1.15 * fastest)
    axes.margins(y=0.35)
    axes.invert_yaxis()  # better is up
    return show(figure, alt)


def compare_bars(table: pd.DataFrame, columns: dict[str, str], alt: str) -> HTML:
    """Some measurements of several models, a small plot each.

    Args:
        table: a column model, and the columns to draw.
        columns: column → axis label with its unit.
        alt: what the figure shows.
    """
    figure, axes = new_figure(width=9.0, height=1.0 + 0.4 * len(table), columns=len(columns))
    rows = list(range(len(table)))
    for n, (plot, (column, axis_label)) in enumerate(zip(axes, columns.items(), strict=True)):
        plot.barh(rows, table[column], color=COLOURS[n % len(COLOURS)], height=0.6)
        plot.set_yticks(rows, [label(m) if n == 0 else "" for m in table["model"]])
        plot.invert_yaxis()
        plot.set_xlabel(axis_label)
        plot.grid(True, axis="x")
        plot.grid(False, axis="y")
    return show(figure, alt)
