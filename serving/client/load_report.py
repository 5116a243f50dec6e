"""What a load test sends, and what came of it: times, percentiles, failures. (Lesson 09.)"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Result:
    """One request: what it took, in seconds, or why it failed."""

    started: float
    seconds: float
    ttft: float = float("nan")
    tokens: int = 0
    error: str = ""

    @property
    def per_token(self) -> float:
        """Mean time per output token after the first, in seconds; NaN with one token."""
        return (self.seconds - self.ttft) / (self.tokens - 1) if self.tokens > 1 else float("nan")


@dataclass
class Load:
    """What to send.

    Attributes:
        url: the server, without /v1.
        model: as the server names it; "" asks /v1/models.
        requests: how many in all.
        clients: closed load: how many at the same time.
        rate: open load: mean requests a second; 0 is closed load.
        min_tokens, max_tokens: lengths are drawn evenly from this range.
        skewed: draw their logarithms evenly instead: many short texts and few long ones,
            as real traffic has them.
        ignore_end: ask for full lengths (`ignore_eos`, an extension of this course's
            server and of vLLM).
        seed: of the lengths, prompts and arrival times.
        timeout: seconds after which a request counts as failed.
        parameters: sent along with every request.
    """

    url: str
    model: str = ""
    requests: int = 64
    clients: int = 8
    rate: float = 0.0
    min_tokens: int = 32
    max_tokens: int = 32
    skewed: bool = False
    ignore_end: bool = False
    seed: int = 0
    timeout: float = 120.0
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass
class Report:
    """The requests of one load test, and what they amount to."""

    load: Load
    seconds: float
    results: list[Result]

    @property
    def good(self) -> list[Result]:
        """The requests that were answered in full."""
        return [r for r in self.results if not r.error]

    def summary(self) -> dict[str, Any]:
        """Throughput, latencies (mean and percentiles, in seconds), errors by kind."""
        good = self.good
        tokens = sum(r.tokens for r in good)
        return {
            "requests": len(self.results),
            "seconds": round(self.seconds, 3),
            "requests_per_second": round(len(good) / self.seconds, 3),
            "tokens_per_second": round(tokens / self.seconds, 1),
            "tokens": tokens,
            "latency": spread([r.seconds for r in good]),
            "time_to_first_token": spread([r.ttft for r in good]),
            "time_per_output_token": spread([r.per_token for r in good]),
            "errors": dict(Counter(r.error for r in self.results if r.error)),
        }

    def table(self) -> str:
        """The summary for reading."""
        s = self.summary()
        lines = [
            f"{s['requests']} requests in {s['seconds']:.1f} s: "
            f"{s['requests_per_second']:.2f} requests/s, {s['tokens_per_second']:.0f} tokens/s",
            "",
            f"{'milliseconds':<24}{'mean':>9}{'p50':>9}{'p95':>9}{'p99':>9}",
        ]
        for name in ("latency", "time_to_first_token", "time_per_output_token"):
            row = "".join(_cell(s[name][k]) for k in ("mean", "p50", "p95", "p99"))
            lines.append(f"{name.replace('_', ' '):<24}{row}")
        lines += ["", "errors: " + (", ".join(f"{n} × {k}" for k, n in s["errors"].items()) or "0")]
        return "\n".join(lines)

    def to_json(self) -> str:
        """Settings, summary and every request."""
        rows = [
            {k: None if v != v else v for k, v in asdict(r).items()}  # JSON knows no NaN
            for r in self.results
        ]
        content = {"load": asdict(self.load), "summary": self.summary(), "results": rows}
        return json.dumps(content, indent=1)


def _cell(seconds: float | None) -> str:
    return f"{'-':>9}" if seconds is None else f"{seconds * 1000:>9.1f}"


def spread(values: list[float]) -> dict[str, float | None]:
    """Mean and percentiles in seconds, without values that are not numbers; None if none are."""
    import numpy as np

    numbers = np.array([v for v in values if v == v])
    if not len(numbers):
        return dict.fromkeys(("mean", "p50", "p95", "p99"))
    found = {f"p{p}": float(np.percentile(numbers, p)) for p in (50, 95, 99)}
    return {k: round(v, 5) for k, v in ({"mean": float(numbers.mean())} | found).items()}
