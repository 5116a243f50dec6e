"""The roofline: operations a second over operations a byte. (Lesson 08.)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from classroom.figures.style import COLOURS, label, new_figure, show

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML

MARKS = "osD^vPX"


def roofline(points: pd.DataFrame, bandwidth: float, peaks: Mapping[str, float], alt: str) -> HTML:
    """What was measured, under what memory and arithmetic allow.

    Args:
        points: columns technique, model, intensity (operations/byte) and speed (operations/s); a
            colour a technique, a mark a model.
        bandwidth: of the memory, bytes/s: the slope.
        peaks: name → operations/s: the level lines.
        alt: what the figure shows.
    """
    figure, (axes,) = new_figure(height=5.2)
    low = 0.6 * float(points["intensity"].min())
    high = 2 * max(float(points["intensity"].max()), max(peaks.values()) / bandwidth)
    for (name, peak), style in zip(peaks.items(), ("-", "--", ":"), strict=False):
        corner = peak / bandwidth
        roof = [low * bandwidth / 1e9, peak / 1e9, peak / 1e9]
        axes.plot([low, corner, high], roof, style, color="black", label=label(name))
    techniques = list(dict.fromkeys(points["technique"]))
    models = list(dict.fromkeys(points["model"]))
    for row in points.to_dict("records"):
        axes.plot(
            row["intensity"], row["speed"] / 1e9, MARKS[models.index(row["model"]) % len(MARKS)],
            color=COLOURS[techniques.index(row["technique"]) % len(COLOURS)], alpha=0.85,
            fillstyle="full" if techniques.index(row["technique"]) < len(COLOURS) else "none",
        )  # fmt: skip
    for number, name in enumerate(techniques):
        fill = "full" if number < len(COLOURS) else "none"
        colour = COLOURS[number % len(COLOURS)]
        axes.plot([], [], "s", color=colour, fillstyle=fill, label=label(name))
    for number, name in enumerate(models):
        mark = MARKS[number % len(MARKS)]
        axes.plot([], [], mark, color="#666666", fillstyle="none", label=label(name))
    axes.set(xscale="log", yscale="log")
    axes.set_xlabel("operations for each byte read (operations/byte)")
    axes.set_ylabel("speed (billion operations/s)")
    axes.grid(True, axis="both")
    figure.legend(loc="outside lower center", ncols=3)
    return show(figure, alt)
