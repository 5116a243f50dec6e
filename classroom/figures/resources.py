"""Memory, processor and time, measured and computed. (Lessons 04 and 05.)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from classroom.figures.style import (
    BLUE,
    COLOURS,
    GREEN,
    ORANGE,
    RED,
    from_zero,
    label,
    new_figure,
    show,
)

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML
    from matplotlib.figure import Figure

    from helpers.monitor import ResourceMonitor


def monitored(monitor: ResourceMonitor, alt: str = "") -> HTML:
    """Memory and processor over time, the phases shaded.

    Args:
        monitor: it has run.
        alt: the figure's message; left out, it is put together from the phases.
    """
    steps = [
        f"{row.phase}: {row.rss_start_mb:.0f} to {row.rss_end_mb:.0f} MB in {row.seconds:.1f} s"
        for row in monitor.phases().itertuples()
    ]
    said = "Memory and processor use over time. " + ("; ".join(steps) or "No phases were named")
    return show(timeline(monitor.frame(), monitor.spans()), alt or said)


def timeline(samples: pd.DataFrame, spans: Sequence[tuple[str, float, float]]) -> Figure:
    """Memory (left) and processor use (right) over time, the named phases shaded.

    Args:
        samples: columns seconds, rss_mb, cpu_percent; gpu_mb is drawn where it is there.
        spans: (name, beginning, end) of each phase in seconds.
    """
    figure, axes = new_figure(width=9.0, height=3.2, columns=2)
    axes[0].plot(samples["seconds"], samples["rss_mb"], color=BLUE, label="memory")
    if "gpu_mb" in samples:
        axes[0].plot(samples["seconds"], samples["gpu_mb"], color=RED, label="GPU tensors")
        axes[0].legend(loc="lower right")
    axes[0].set_ylabel("resident memory (MB)")
    axes[1].plot(samples["seconds"], samples["cpu_percent"], color=ORANGE)
    axes[1].set_ylabel("processor (% of one core)")
    for plot in axes:
        plot.set_xlabel("time (s)")
        from_zero(plot)
        for n, (name, began, ended) in enumerate(spans):
            plot.axvspan(
                began, ended, color=COLOURS[n % len(COLOURS)], alpha=0.25, lw=0, label=label(name)
            )
    if spans:  # a short phase has no room for its name, so all stand above
        figure.legend(handles=axes[1].patches, loc="outside upper center", ncols=min(6, len(spans)))
    return figure


def latency_spread(seconds: pd.DataFrame, alt: str) -> HTML:
    """Each call's time in the order of the calls, with median, 95th percentile and mean.

    Args:
        seconds: columns call (1, 2, …) and seconds.
        alt: what the figure shows.
    """
    figure, (axes,) = new_figure()
    axes.plot(seconds["call"], 1000 * seconds["seconds"], "o", color=BLUE, label="one call")
    later = 1000 * seconds["seconds"].iloc[1:]
    for value, name, colour, style in (
        (float(later.median()), "median of the later calls", GREEN, "-"),
        (float(later.quantile(0.95)), "their 95th percentile", ORANGE, "--"),
    ):
        axes.axhline(value, color=colour, linestyle=style, label=name)
    axes.set_xlabel("call")
    axes.set_ylabel("time of one call (ms)")
    from_zero(axes)
    axes.legend()
    return show(figure, alt)


def size_lines(table: pd.DataFrame, alt: str) -> HTML:
    """Memory of models in several number formats, on a logarithmic scale.

    Args:
        table: the index names the models; columns such as fp16_gb, in GB.
        alt: what the figure shows.
    """
    figure, (axes,) = new_figure(height=1.2 + 0.35 * len(table))
    rows = list(range(len(table)))
    formats = [column for column in table.columns if column.endswith("_gb")]
    for column, mark in zip(formats, "os^D", strict=False):
        axes.plot(table[column], rows, mark, markersize=7, label=label(column.removesuffix("_gb")))
    for gb in (1, 8, 24, 80):
        axes.axvline(gb, color="gray", linestyle=":", linewidth=1)
        axes.annotate(f"{gb} GB", (gb, -0.8), fontsize=8, ha="center")
    axes.set_xscale("log")
    axes.set_yticks(rows, [label(name) for name in table.index])
    axes.set_ylim(len(table) - 0.5, -1.1)
    axes.set_xlabel("memory for one sequence (GB, logarithmic)")
    axes.grid(True, axis="x")
    axes.legend(loc="lower left")
    return show(figure, alt)
