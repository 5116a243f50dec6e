"""A request's way through the server, and what a load does to it. (Lesson 06.)"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from classroom.figures.style import (
    BLUE,
    COLOURS,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    label,
    new_figure,
    show,
)

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML


def service_path(alt: str) -> HTML:
    """What a request passes on its way through the course's server, as boxes and arrows.

    Args:
        alt: what the figure shows.
    """
    figure, (axes,) = new_figure(height=3.0)
    axes.axis("off")
    axes.set(xlim=(0, 100), ylim=(0, 44))
    boxes = [
        (0, "client", "Python, curl,\nbrowser", SKY),
        (22, "validation", "many threads\n400 if wrong", GREEN),
        (45, "queue", "bounded:\n503 if full", ORANGE),
        (68, "engine", "one thread\none step for\nall slots", BLUE),
        (89, "model", "", PURPLE),
    ]
    width = {"model": 11}
    for x, name, note, colour in boxes:
        wide = width.get(name, 17)
        axes.add_patch(_rounded(x, 16, wide, 20, colour))
        axes.text(x + wide / 2, 32 if note else 26, name, ha="center", va="center", weight="bold")
        axes.text(x + wide / 2, 24, note, ha="center", va="center", fontsize=8.5)
    arrow: dict[str, Any] = {"arrowstyle": "->", "color": "#333333", "lw": 1.3}
    for start, end in ((17, 22), (39, 45), (62, 68)):
        axes.annotate("", (end, 26), (start, 26), arrowprops=arrow)
    axes.annotate("", (89, 26), (85, 26), arrowprops=arrow | {"arrowstyle": "<->"})
    axes.plot([76.5, 76.5, 8.5, 8.5], [16, 6, 6, 12], color="#333333", lw=1.3)
    axes.annotate("", (8.5, 16), (8.5, 8), arrowprops=arrow)
    axes.text(42.5, 8, "answer: whole, or piece by piece", ha="center", fontsize=9)
    return show(figure, alt)


def _rounded(x: float, y: float, width: float, height: float, colour: str) -> Any:
    from matplotlib.patches import FancyBboxPatch

    return FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0,rounding_size=2",
        facecolor=f"{colour}33", edgecolor=colour, linewidth=1.4,
    )  # fmt: skip


def load_bars(loads: pd.DataFrame, alt: str) -> HTML:
    """Median latency and throughput, a group of bars a number of clients.

    Args:
        loads: index (batching, clients); columns latency_ms, p95_ms, tokens_per_s.
        alt: what the figure shows.
    """
    figure, axes = new_figure(columns=2, height=3.0)
    labels = {"latency_ms": "latency (ms): bar p50, dot p95", "tokens_per_s": "tokens per second"}
    clients = list(dict.fromkeys(loads.index.get_level_values("clients")))
    for axis, (column, axis_label) in zip(axes, labels.items(), strict=True):
        for n, (batching, rows) in enumerate(loads.groupby(level="batching", sort=False)):
            at = [clients.index(c) + 0.4 * n - 0.2 for c in rows.index.get_level_values("clients")]
            axis.bar(at, rows[column], width=0.36, color=COLOURS[n], label=label(batching))
            if column == "latency_ms":
                axis.plot(at, rows["p95_ms"], "o", color="#333333", markersize=4)
        axis.set_xticks(range(len(clients)), [str(c) for c in clients])
        axis.set_xlabel("clients at the same time")
        axis.set_ylabel(axis_label)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, title="batching", loc="outside upper center", ncols=2)
    return show(figure, alt)
