"""The report's figures: bars that say at a glance where time goes and how values differ."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from classroom import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_BARS = 40
LABEL_CHARACTERS = 60
PANELS = 3


def bars(axes: Axes, labels: list[str], values: list[float], colours: list[str]) -> None:
    """Horizontal bars, the first one on top, each with its value at its end."""
    places = range(len(values))
    drawn = axes.barh(places, values, color=colours, height=0.7)
    axes.bar_label(drawn, [f"{value:.4g}" for value in values], padding=3, fontsize=8)
    axes.set_yticks(places, labels, fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", alpha=0.3)
    axes.margins(x=0.18)


@lru_cache(maxsize=8)
def time_figure(runs: tuple[tuple[str, float, bool], ...]) -> str:
    """Seconds of each run as HTML; empty if there are too many to read.

    Args:
        runs: label, seconds and whether it passed.
    """
    if not 0 < len(runs) <= MAX_BARS:
        return ""
    labels = [_short(label if ok else f"{label} (failed)") for label, _, ok in runs]
    figure, (axes,) = figures.new_figure(8.0, 0.9 + 0.26 * len(runs))
    bars(
        axes,
        labels,
        [round(seconds, 1) for _, seconds, _ in runs],
        [figures.BLUE if ok else figures.RED for _, _, ok in runs],
    )
    axes.set_xlabel("seconds")
    slowest = max(runs, key=lambda run: run[1])
    alt = f"Seconds of each run; the longest is {slowest[0]} with {slowest[1]:.1f} s."
    return str(figures.show(figure, alt).data)


@lru_cache(maxsize=200)
def value_figure(
    labels: tuple[str, ...], columns: tuple[tuple[str, tuple[float, ...]], ...]
) -> str:
    """Recorded numbers side by side, a panel each, as HTML; empty if too many to read.

    Args:
        labels: one a row.
        columns: name and values (one a row), at most `PANELS`.
    """
    if len(labels) > MAX_BARS:
        return ""
    width = 3.4 + 2.3 * (len(columns) - 1) + 2.0
    figure, panels = figures.new_figure(width, 0.9 + 0.28 * len(labels), columns=len(columns))
    shown = [_short(label) for label in labels]
    for place, (axes, (name, values)) in enumerate(zip(panels, columns, strict=True)):
        colour = figures.COLOURS[place % len(figures.COLOURS)]
        bars(
            axes, shown if place == 0 else [""] * len(labels), list(values), [colour] * len(values)
        )
        axes.set_title(name, fontsize=9)
    said = []
    for name, values in columns:
        low, high = min(values), max(values)
        at = labels[values.index(high)]
        said.append(f"{name} from {low:.4g} to {high:.4g} (highest: {at})")
    return str(figures.show(figure, "Bars: " + "; ".join(said) + ".").data)


def _short(text: str) -> str:
    """Text that fits beside a bar."""
    return text if len(text) <= LABEL_CHARACTERS else text[: LABEL_CHARACTERS - 1] + "…"
