"""What `benchmarks.serving` measured, as Markdown: absolute values and ratios side by side."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START, END = "<!-- serving: start -->", "<!-- serving: end -->"


@dataclass(frozen=True)
class Sample:
    """One server under one load in one round; times in seconds."""

    tokens_per_second: float
    p50: float
    p95: float
    ttft: float
    ttft_p95: float
    per_token: float

    @classmethod
    def of(cls, summary: dict[str, Any]) -> Sample:
        """The figures of a load test's `Report.summary`."""
        first = summary["time_to_first_token"]
        return cls(
            tokens_per_second=summary["tokens_per_second"],
            p50=summary["latency"]["p50"],
            p95=summary["latency"]["p95"],
            ttft=first["p50"],
            ttft_p95=first["p95"],
            per_token=summary["time_per_output_token"]["p50"] or float("nan"),
        )


Samples = dict[tuple[str, str], list[Sample]]  # (server, load) → one a round
Figure = Callable[[Sample], float]


def median(samples: Iterable[Sample], figure: Figure) -> float:
    """Median over the rounds."""
    return statistics.median(figure(sample) for sample in samples)


def ratio(samples: Samples, load: str, one: str, other: str, figure: Figure) -> float:
    """How many times `one` has of what `other` has: median of the rounds' own ratios.

    Both were measured within seconds of each other in a round, so what slows the whole
    machine for a while cancels out.
    """
    pairs = zip(samples[one, load], samples[other, load], strict=True)
    return statistics.median(figure(a) / figure(b) for a, b in pairs)


def grid(
    samples: Samples, loads: list[str], base: str, figure: Figure, form: Callable[[float], str]
) -> str:
    """A table of servers by loads: each cell a value, and its ratio to the server `base`."""
    servers = list(dict.fromkeys(server for server, _ in samples))
    rows = ["| server | " + " | ".join(loads) + " |", "|---" * (len(loads) + 1) + "|"]
    for server in servers:
        cells = []
        for load in loads:
            cell = form(median(samples[server, load], figure))
            if (base, load) in samples:
                cell += f" ({ratio(samples, load, server, base, figure):.2g}×)"
            cells.append(cell)
        rows.append(f"| {server} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def replace(file: Path, text: str) -> None:
    """Put `text` between the markers of a Markdown file.

    Raises:
        ValueError: the markers are not there.
    """
    before, start, rest = file.read_text("utf-8").partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"{file.name} lacks the lines {START} and {END}")
    file.write_text(f"{before}{START}\n\n{text.strip()}\n\n{END}{after}", "utf-8")
