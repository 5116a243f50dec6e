"""Figures as Markdown: absolute values and ratios side by side."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Sample:
    """One server under one load in one round; times in seconds, memory in bytes.

    Attributes:
        resident: memory of the server and its child processes after the load.
    """

    tokens_per_second: float
    p50: float
    p95: float
    ttft: float
    ttft_p95: float
    per_token: float
    resident: float

    @classmethod
    def of(cls, summary: dict[str, Any], resident: float) -> Sample:
        """The figures of a load test's `Report.summary`."""
        first = summary["time_to_first_token"]
        return cls(
            tokens_per_second=summary["tokens_per_second"],
            p50=summary["latency"]["p50"],
            p95=summary["latency"]["p95"],
            ttft=first["p50"],
            ttft_p95=first["p95"],
            per_token=summary["time_per_output_token"]["p50"] or float("nan"),
            resident=resident,
        )


Samples = dict[tuple[str, str], dict[int, Sample]]  # (server, load) → round → what was measured
Figure = Callable[[Sample], float]


def median(samples: dict[int, Sample], figure: Figure) -> float:
    """Median over the rounds."""
    return statistics.median(figure(sample) for sample in samples.values())


def median_ratio(one: dict[int, float], other: dict[int, float]) -> float:
    """Median of the rounds' own ratios; NaN where there is no round that both have.

    Both were measured within seconds of each other in a round, so what slows the whole
    machine for a while cancels out.
    """
    both = sorted(one.keys() & other.keys())
    return statistics.median(one[n] / other[n] for n in both) if both else float("nan")


def ratio(samples: Samples, load: str, one: str, other: str, figure: Figure) -> float:
    """How many times `one` has of what `other` has; NaN where either was not measured."""
    mine, theirs = (
        {number: figure(sample) for number, sample in samples.get((server, load), {}).items()}
        for server in (one, other)
    )
    return median_ratio(mine, theirs)


def rows(heads: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    first, *others = (f"| {' | '.join(cells)} |" for cells in (list(heads), *map(list, lines)))
    return "\n".join([first, "|---" * (first.count(" | ") + 1) + "|", *others])


def cell(value: float, share: float, form: Callable[[float], str]) -> str:
    """A value, and in brackets a ratio: "120 (1.5×)"; without the ratio where it is NaN."""
    return form(value) + (f" ({share:.2g}×)" if share == share else "")


def grid(
    samples: Samples, loads: list[str], base: str, figure: Figure, form: Callable[[float], str]
) -> str:
    """A table of servers by loads: each cell a value, and its ratio to the server `base`."""
    lines = []
    for server in dict.fromkeys(server for server, _ in samples):
        line = [server]
        for load in loads:
            if of := samples.get((server, load)):
                share = ratio(samples, load, server, base, figure)
                line.append(cell(median(of, figure), share, form))
            else:
                line.append("–")
        lines.append(line)
    return rows(["server", *loads], lines)


def markers(section: str) -> tuple[str, str]:
    """The lines of a Markdown file between which a section's tables stand."""
    return f"<!-- {section}: start -->", f"<!-- {section}: end -->"


def replace(file: Path, section: str, text: str) -> None:
    """Put `text` between the markers of a Markdown file.

    Raises:
        ValueError: the markers are not there.
    """
    start, end = markers(section)
    before, found, rest = file.read_text("utf-8").partition(start)
    _, last, after = rest.partition(end)
    if not (found and last):
        raise ValueError(f"{file.name} lacks the lines {start} and {end}")
    file.write_text(f"{before}{start}\n\n{text.strip()}\n\n{end}{after}", "utf-8")
