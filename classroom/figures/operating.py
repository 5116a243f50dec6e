"""Slots over time, throughput against latency, the four kinds of metrics, waiting. (Lesson 09.)"""

from __future__ import annotations

from typing import TYPE_CHECKING

from classroom.figures.basics import lines
from classroom.figures.style import (
    BLUE,
    COLOURS,
    GREEN,
    ORANGE,
    RED,
    label,
    new_figure,
    show,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from IPython.display import HTML


def slot_timeline(seats: Mapping[str, pd.DataFrame], alt: str) -> HTML:
    """Which request sat in which slot at which step, one plot a way of batching.

    Args:
        seats: name → table as `slots.watch_slots` gives it.
        alt: what the figure shows.
    """
    figure, axes = new_figure(width=8.0, height=1.9 * len(seats), rows=len(seats))
    last = max(int(table["step"].max()) for table in seats.values())
    for axis, (name, table) in zip(axes, seats.items(), strict=True):
        texts = table.groupby(["request", "slot", "works"])["step"].agg(["min", "max"])
        for (request, slot, works), (first, end) in zip(
            texts.index, texts.to_numpy().tolist(), strict=True
        ):
            colour = COLOURS[(request - 1) % len(COLOURS)] if works else "white"
            axis.barh(slot, end - first + 1, left=first - 1, height=0.8, color=colour,
                      edgecolor="#777777", hatch="" if works else "////")  # fmt: skip
        for request, rows in table[table["works"]].groupby("request"):
            axis.text(rows["step"].min() - 0.5, rows["slot"].iloc[0], str(request), ha="center",
                      va="center", fontsize=9, weight="bold")  # fmt: skip
        axis.set(xlim=(0, last), ylabel="slot", title=label(name))
        axis.set_yticks(sorted(set(table["slot"])))
        axis.invert_yaxis()
        axis.grid(False)
    axes[-1].set_xlabel("step of the engine")
    return show(figure, alt)


def knee_figure(loads: pd.DataFrame, knee: int, alt: str) -> HTML:
    """Throughput and latency over the number of clients, the knee marked.

    Args:
        loads: index clients; columns tokens_per_s, p50_ms, p95_ms.
        knee: the number of clients at the knee.
        alt: what the figure shows.
    """
    figure, (left, right) = new_figure(width=8.0, height=3.2, columns=2)
    lines(left, loads[["tokens_per_s"]], "clients at the same time", "tokens per second")
    both = loads[["p50_ms", "p95_ms"]].rename(columns=lambda name: name.removesuffix("_ms"))
    lines(right, both, "clients at the same time", "latency (ms)")
    for axis in (left, right):
        axis.axvline(knee, color=RED, linestyle="--", label=f"knee: {knee} clients")
        axis.set_xticks(list(loads.index))
        axis.tick_params(axis="x", labelsize=8)
    handles, names = left.get_legend_handles_labels()
    left.legend(handles[1:], names[1:], loc="lower right")  # the axis names its line
    return show(figure, alt)


def four_kinds(phases: pd.DataFrame, errors: Mapping[str, int], alt: str) -> HTML:
    """Latency, throughput, resources and errors over the phases of a load.

    Args:
        phases: as `Watch.phases` gives them, the index numbers of clients.
        errors: kind → requests that failed so.
        alt: what the figure shows.
    """
    figure, (latency, throughput, resources, failed) = new_figure(8.0, 5.2, columns=2, rows=2)
    x = "clients at the same time"
    names = {"p50_ms": "p50", "p95_ms": "p95", "p99_ms": "p99", "ttft_ms": "first token, p50"}
    lines(latency, phases[list(names)].rename(columns=names), x, "latency (ms)")
    lines(throughput, phases[["tokens_per_s"]].astype(float), x, "tokens per second")
    beside = throughput.twinx()
    beside.plot(phases.index, phases["rows_per_step"], "s--", color=ORANGE)
    beside.set_ylabel("rows a step (dashed)")
    beside.set_ylim(bottom=0)
    lines(resources, phases[["rss_mb"]].astype(float), x, "resident memory (MB)")
    cores = resources.twinx()
    cores.plot(phases.index, phases["cpu_cores"], "s--", color=GREEN)
    cores.set_ylabel("processor (cores, dashed)")
    cores.set_ylim(bottom=0)
    bars = failed.barh([label(kind) for kind in errors] or ["none"], list(errors.values()) or [0],
                       color=RED, height=0.5)  # fmt: skip
    failed.bar_label(bars, padding=3)
    failed.set_xlabel("requests that failed, by kind")
    failed.set_xlim(0, max([*errors.values(), 1]) * 1.15)
    failed.grid(False)
    return show(figure, alt)


def waiting_curve(waits: pd.DataFrame, alt: str) -> HTML:
    """How long requests wait as a server fills up, one line a number of slots.

    Args:
        waits: mean wait in seconds; the index is the use of the slots in percent.
        alt: what the figure shows.
    """
    figure, (axes,) = new_figure(height=3.0)
    lines(axes, waits, "slots in use (%)", "mean wait (s)")
    axes.axvspan(80, 100, color=BLUE, alpha=0.08, lw=0)
    return show(figure, alt)
