"""Several models side by side. (Lesson 05.)"""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.figures.style import COLOURS, label, new_figure, show

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML


def frontier(table: pd.DataFrame, alt: str) -> HTML:
    """Quality against speed, one bubble a model, its area the peak memory.

    Args:
        table: columns model, tokens_per_s, tokens_low, tokens_high, bits_per_byte, peak_mb.
        alt: what the figure shows.
    """
    figure, (axes,) = new_figure(height=4.0)
    fastest = float(table["tokens_high"].max())
    for n, row in enumerate(table.to_dict("records")):
        colour = COLOURS[n % len(COLOURS)]
        spread = [
            [row["tokens_per_s"] - row["tokens_low"]],
            [row["tokens_high"] - row["tokens_per_s"]],
        ]
        at = (row["tokens_per_s"], row["bits_per_byte"])
        axes.errorbar(*at, xerr=spread, color=colour, capsize=4, zorder=2)
        axes.scatter(*at, s=row["peak_mb"], color=colour, alpha=0.75, zorder=3, clip_on=False)
        axes.annotate(
            f"{label(row['model'])}\n{row['peak_mb']:.0f} MB", at, xytext=(0, 18),
            textcoords="offset points", fontsize=9,
            ha="left" if at[0] < 0.2 * fastest else "center",
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
