"""Accuracy with intervals, confidence, probabilities as a strip. (Lesson 07.)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from classroom.figures.style import BLUE, COLOURS, ORANGE, label, new_figure, show
from system.markup import attribute, safe, visible

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML

BINS = (0, 40, 60, 80, 100)  # of confidence, in percent


def intervals(
    tables: Mapping[str, pd.DataFrame], x_label: str, alt: str, chance: float | None = None
) -> HTML:
    """A point with its interval a row, a colour a table.

    Args:
        tables: name → table with columns value, low and high; the same index names the rows.
        x_label: with its unit.
        alt: what the figure shows.
        chance: a dashed line at the value of mere guessing.
    """
    index = list(next(iter(tables.values())).index)
    figure, (axes,) = new_figure(height=1.2 + 0.42 * len(index))
    for number, (name, table) in enumerate(tables.items()):
        shift = 0.3 * (number - (len(tables) - 1) / 2)
        reach = [table["value"] - table["low"], table["high"] - table["value"]]
        rows = [row + shift for row in range(len(index))]
        axes.errorbar(
            table["value"], rows, xerr=reach, fmt="o", color=COLOURS[number % len(COLOURS)],
            capsize=4, label=label(name),
        )  # fmt: skip
    if chance is not None:
        axes.axvline(chance, color="black", linestyle="--", label="guessing")
    axes.set_yticks(range(len(index)), [label(name) for name in index])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel(x_label)
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    figure.legend(loc="outside lower center", ncols=3)
    return show(figure, alt)


def calibration(judged: pd.DataFrame, alt: str, edges: Sequence[float] = BINS) -> HTML:
    """Accuracy over confidence; where the model knows how sure it is, points lie on the line.

    Args:
        judged: columns confidence (%) and right (100 or 0); a row an answer.
        alt: what the figure shows.
        edges: where the bins of confidence begin and end (%); the points are the means of
            what is in a bin, their areas count it.
    """
    import pandas as pd

    bins = judged.groupby(pd.cut(judged["confidence"], list(edges)), observed=True)
    means, sizes = bins[["confidence", "right"]].mean(), bins.size()
    figure, (axes,) = new_figure(width=5.0, height=3.4)
    axes.plot([0, 100], [0, 100], "--", color=ORANGE, label="confidence = accuracy")
    axes.plot(means["confidence"], means["right"], "-", color=BLUE)
    areas = [6.0 * items for items in sizes]
    axes.scatter(means["confidence"], means["right"], s=areas, color=BLUE, alpha=0.7)
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
