"""Accuracy with intervals, confidence, probabilities as a strip. (Lesson 07.)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from classroom.figures.style import BLUE, ORANGE, label, new_figure, show
from system.markup import attribute, safe, visible

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML


def intervals(table: pd.DataFrame, x_label: str, alt: str, chance: float | None = None) -> HTML:
    """A point with its interval a row.

    Args:
        table: columns value, low and high; the index names the rows.
        x_label: with its unit.
        alt: what the figure shows.
        chance: a dashed line at the value of mere guessing.
    """
    figure, (axes,) = new_figure(height=1.0 + 0.4 * len(table))
    rows = range(len(table))
    reach = [table["value"] - table["low"], table["high"] - table["value"]]
    axes.errorbar(table["value"], rows, xerr=reach, fmt="o", color=BLUE, capsize=4)
    if chance is not None:
        axes.axvline(chance, color=ORANGE, linestyle="--", label="guessing")
        axes.legend()
    axes.set_yticks(rows, [label(name) for name in table.index])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel(x_label)
    return show(figure, alt)


def calibration(table: pd.DataFrame, alt: str) -> HTML:
    """Accuracy over confidence; where the model knows how sure it is, points lie on the line.

    Args:
        table: columns confidence (%), accuracy (%) and items; one row a bin.
        alt: what the figure shows.
    """
    figure, (axes,) = new_figure(width=5.0, height=3.4)
    axes.plot([0, 100], [0, 100], "--", color=ORANGE, label="confidence = accuracy")
    axes.plot(table["confidence"], table["accuracy"], "-", color=BLUE)
    sizes = [6.0 * items for items in table["items"]]
    axes.scatter(table["confidence"], table["accuracy"], s=sizes, color=BLUE, alpha=0.7)
    axes.set(xlabel="mean confidence (%)", ylabel="accuracy (%)", xlim=(0, 100), ylim=(0, 105))
    axes.legend(loc="upper left")
    return show(figure, alt)


def probability_strip(tokens: Sequence[str], probabilities: Sequence[float]) -> HTML:
    """A text whose tokens are the darker, the less the model expected them.

    Args:
        tokens: their texts.
        probabilities: of each, 0 to 1, in the same order.
    """
    from IPython.display import HTML

    boxes = "".join(
        f"<span title='{p:.1%}' style='background:rgba(213,94,0,{0.75 * (1 - p) ** 2:.2f});"
        "padding:2px 3px;margin:1px;border-radius:3px;display:inline-block;text-align:center;"
        f"white-space:pre-wrap'>{safe(visible(token))}"
        f"<small style='display:block;font-size:.72em'>{p:.0%}</small></span>"
        for token, p in zip(tokens, probabilities, strict=True)
    )
    words = " | ".join(f"{t} {p:.0%}" for t, p in zip(tokens, probabilities, strict=True))
    return HTML(
        f"<div role='img' aria-label='{attribute(words)}' "
        "style='font-family:var(--jp-code-font-family,monospace);line-height:1.7'>"
        f"{boxes}</div>"
    )
