"""Slots over time, throughput against latency, the four kinds of metrics, waiting. (Lesson 09.)"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from classroom.figures.basics import lines
from classroom.figures.style import (
    BLUE,
    COLOURS,
    ORANGE,
    RED,
    label,
    new_figure,
    show,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from IPython.display import HTML
    from matplotlib.axes import Axes


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
            dark = COLOURS[(int(str(request)) - 1) % len(COLOURS)] == BLUE  # black is hard to read
            axis.text(rows["step"].min() - 0.5, rows["slot"].iloc[0], str(request), ha="center",
                      va="center", fontsize=9, weight="bold",
                      color="white" if dark else "black")  # fmt: skip
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


def four_kinds(loads: Sequence[pd.DataFrame], alt: str) -> HTML:
    """Latency, throughput, resources and errors while loads ran, one load after the other.

    Args:
        loads: as `Watch.over_time` gives them; what lies between two of them is left out.
        alt: what the figure shows.
    """
    table = _joined(loads)
    figure, axes = new_figure(8.0, 5.4, columns=2, rows=2)
    latency, throughput, resources, failed = axes
    names = {"p50_ms": "p50", "p95_ms": "p95", "p99_ms": "p99", "ttft_ms": "first token, p50"}
    for column, name in names.items():
        latency.plot(table.index, table[column], label=name)
    latency.set_ylabel("latency (ms)")
    pairs = [
        (throughput, "tokens_per_s", "tokens per second", "rows_per_step", "rows a step"),
        (resources, "rss_mb", "resident memory (MB)", "cpu_cores", "processor cores"),
    ]
    for axis, left, left_label, right, right_label in pairs:
        axis.plot(table.index, table[left])
        axis.set_ylabel(left_label)
        beside = axis.twinx()
        beside.plot(table.index, table[right], "--", color=ORANGE)
        beside.set_ylabel(f"{right_label} (dashed)")
        beside.set_ylim(bottom=0)
    kinds = sorted({kind for errors in table["errors"] for kind in errors})
    for kind in kinds:
        counts = [errors.get(kind, 0) for errors in table["errors"]]
        failed.plot(table.index, counts, drawstyle="steps-post", label=label(kind))
    failed.set_ylabel("failed requests so far")
    for axis in axes:
        _mark_phases(axis, table["phase"])
        axis.set_ylim(bottom=0)
    latency.legend(fontsize=8)
    if kinds:
        failed.legend(loc="center left")
    return show(figure, alt)


def _joined(loads: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Loads one after the other: their times and their errors go on counting."""
    import pandas as pd

    parts: list[pd.DataFrame] = []
    for load in loads:
        during = load[load["phase"].notna()].copy()
        at, errors = 0.0, {}
        if parts:
            at, errors = parts[-1].index[-1], parts[-1]["errors"].iloc[-1]
        during.index = during.index - during.index[0] + at
        counted = [dict(Counter(errors) + Counter(more)) for more in during["errors"]]
        during["errors"] = pd.Series(counted, during.index, dtype=object)
        parts.append(during)
    return pd.concat(parts)


def _mark_phases(axis: Axes, phases: pd.Series) -> None:
    """A band for each phase, its name above; every second one is shaded."""
    for number, during in phases.groupby((phases != phases.shift()).cumsum()):
        first, last, name = during.index[0], during.index[-1], during.iloc[0]
        if number % 2:
            axis.axvspan(first, last, color="#777777", alpha=0.1, lw=0)
        axis.text((first + last) / 2, 1.02, label(name), ha="center", fontsize=8,
                  transform=axis.get_xaxis_transform())  # fmt: skip
    axis.set(xlabel="seconds under load (above: clients)", xlim=(0, phases.index[-1]))


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
