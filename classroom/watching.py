"""A server's metrics while it works: `/metrics`, asked again and again. (Lesson 09.)

with Watch(server.url) as watch:
with watch.phase(8):
...                       # a load of 8 clients
watch.phases()                    # what Prometheus would show of each phase
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Self

import httpx
import pandas as pd
from prometheus_client.parser import text_string_to_metric_families

from system.polling import Polling

Labels = tuple[tuple[str, str], ...]
Sample = Mapping[tuple[str, Labels], float]
HIDDEN = {"engine", "model_name", "gen_ai_request_model"}  # the same for every sample here


def read_metrics(text: str) -> dict[tuple[str, Labels], float]:
    """What `/metrics` says: (name, its labels in order) → value.

    Args:
        text: in Prometheus' text format; labels that name the model are left out.
    """
    return {
        (name, tuple(sorted((k, v) for k, v in labels.items() if k not in HIDDEN))): value
        for family in text_string_to_metric_families(text)
        for name, labels, value, *_ in family.samples
    }


def value(sample: Sample, name: str, **labels: str) -> float:
    """One value of a sample; NaN where the server does not show it."""
    return sample.get((name, tuple(sorted(labels.items()))), math.nan)


def histogram(before: Sample, after: Sample, name: str) -> dict[float, float]:
    """What a histogram counted between two samples: upper end → how many, smaller ones included.

    Args:
        before: a sample.
        after: a later one of the same server.
        name: without `_bucket`.
    """
    found = {}
    for (known, labels), count in after.items():
        if known == f"{name}_bucket":
            found[float(dict(labels)["le"])] = count - before.get((known, labels), 0.0)
    return dict(sorted(found.items()))


def quantile(share: float, buckets: Mapping[float, float]) -> float:
    """The value that a share of all measurements does not exceed, as Prometheus estimates it.

    Within the bucket that holds it, values are taken to lie evenly
    (https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile).

    Args:
        share: from 0 to 1.
        buckets: as `histogram` gives them, the last one infinite.

    Returns:
        in the buckets' unit; NaN where nothing was counted.
    """
    total = max(buckets.values(), default=0.0)
    if not total:
        return math.nan
    low, below = 0.0, 0.0
    for high, count in buckets.items():
        if count >= share * total and count > below:
            if math.isinf(high):
                return low
            return low + (high - low) * (share * total - below) / (count - below)
        low, below = high, count
    return low


class Watch(Polling):
    """Asks a server's `/metrics` in a thread of its own, from `with` to its end.

    Attributes:
        samples: (seconds since the start, phase or None, what was shown).
    """

    def __init__(self, url: str, every: float = 0.1) -> None:
        """Not asking yet.

        Args:
            url: the server, which asks for no key.
            every: seconds between two questions.
        """
        super().__init__(every)
        self.samples: list[tuple[float, object, Sample]] = []
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)
        self._phase: object = None
        self._start = 0.0
        self._lock = threading.Lock()
        self._phases: dict[object, tuple[Sample, Sample, float]] = {}

    def __enter__(self) -> Self:
        self._start = time.perf_counter()
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._http.close()

    @contextmanager
    def phase(self, name: object) -> Iterator[None]:
        """What happens within belongs together, under this name."""
        before, began = self._ask(name), time.perf_counter()
        self._phase = name
        try:
            yield
        finally:
            self._phase, seconds = None, time.perf_counter() - began
            self._phases[name] = (before, self._ask(name), seconds)

    def _ask(self, phase: object) -> Sample:
        """One sample, which belongs to this phase."""
        with self._lock:
            shown = read_metrics(self._http.get("/metrics").text)
            self.samples.append((time.perf_counter() - self._start, phase, shown))
        return shown

    def look(self) -> None:
        """One sample."""
        with suppress(httpx.TransportError):  # a server that is gone shows nothing
            self._ask(self._phase)

    def in_system(self, phase: object) -> float:
        """Mean number of texts that waited or were written in a phase, its two ends left out."""
        during = [_in_system(shown) for _, name, shown in self.samples if name == phase]
        return float(pd.Series(during[1:-1], dtype=float).mean())

    def over_time(self, window: float = 0.5) -> pd.DataFrame:
        """The figures of `phases` at each moment: what a dashboard draws.

        Args:
            window: seconds that each moment looks back over, as Prometheus' `rate` does.

        Returns:
            index: seconds since the start; columns as in `phases`, but in_system at the moment
            and errors since the start; phase: its name, or None.
        """
        rows: dict[float, dict[str, object]] = {}
        least = min(window, self.samples[-1][0]) / 2  # a shorter look back sees only chance
        began = 0  # number of the first sample in the window
        for at, phase, shown in self.samples:
            while self.samples[began][0] < at - window:
                began += 1
            then, _, before = self.samples[began]
            if at - then >= least:
                so_far = {"errors": _errors(self.samples[0][2], shown), "phase": phase}
                found = _figures(before, shown, at - then) | so_far
                rows[at] = found | {"in_system": _in_system(shown)}
        return pd.DataFrame(rows).T.rename_axis("seconds")

    def phases(self) -> pd.DataFrame:
        """Four kinds of figures a phase: latency, throughput, resources, errors.

        Returns:
            index: the phases; columns p50_ms, p95_ms, p99_ms (of whole texts), ttft_ms (p50),
            requests_per_s, mean_s (of whole texts), in_system, tokens_per_s, rows_per_step,
            cpu_cores, rss_mb, errors (a dictionary: kind → how many).
        """
        rows = {
            name: _figures(*found) | {"in_system": self.in_system(name)}
            for name, found in self._phases.items()
        }
        return pd.DataFrame(rows).T.rename_axis("phase")


def _figures(before: Sample, after: Sample, seconds: float) -> dict[str, object]:
    """What happened between two samples."""

    def grown(name: str) -> float:
        return value(after, name) - value(before, name)

    latency = "vllm:e2e_request_latency_seconds"
    texts = grown(f"{latency}_count")
    whole = histogram(before, after, latency)
    first = histogram(before, after, "vllm:time_to_first_token_seconds")
    steps = grown("llm_engine_steps_total")
    return {
        **{f"p{p}_ms": 1000 * quantile(p / 100, whole) for p in (50, 95, 99)},
        "ttft_ms": 1000 * quantile(0.5, first),
        "requests_per_s": texts / seconds,
        "mean_s": grown(f"{latency}_sum") / texts if texts else math.nan,
        "tokens_per_s": grown("vllm:generation_tokens_total") / seconds,
        "rows_per_step": grown("llm_engine_row_steps_total") / steps if steps else math.nan,
        "cpu_cores": grown("process_cpu_seconds_total") / seconds,
        "rss_mb": value(after, "process_resident_memory_bytes") / 1e6,
        "errors": _errors(before, after),
    }


def _errors(before: Sample, after: Sample) -> dict[str, int]:
    """Requests that failed between two samples: kind → how many."""
    counts = {
        dict(labels)["error_type"]: int(count - before.get((name, labels), 0.0))
        for (name, labels), count in after.items()
        if name == "llm_errors_total"
    }
    return {kind: count for kind, count in counts.items() if count}


def _in_system(shown: Sample) -> float:
    """Texts that wait or are written."""
    return value(shown, "vllm:num_requests_waiting") + value(shown, "vllm:num_requests_running")


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something is so.

    Args:
        condition: asked again and again.
        seconds: the most to wait.

    Raises:
        TimeoutError: it was not so in that time.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"what was waited for did not come within {seconds:g} s")
        time.sleep(0.01)
