"""Figures that are read when `/metrics` is asked for: the engine's, the process's. (Lesson 09.)

The engine does no more than count (`serving.engine.stats`); what has to be written for
Prometheus is written in the thread that answers it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import accumulate
from typing import Any

import psutil
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from helpers.monitor import read_gpu, read_process
from serving.engine.stats import GAPS, Stats
from serving.models import Models
from serving.service import Service

GAP, GAP_TEXT = "vllm:inter_token_latency_seconds", "Time between two tokens of a text"
KV_TEXT = "Places of the key-value cache in use, of slots x longest text; 1 is all"
Family = GaugeMetricFamily | CounterMetricFamily


def labels(model: str) -> dict[str, str]:
    """What every figure of a model's engine carries, as vLLM's do."""
    return {"model_name": model, "engine": "0"}


class EngineCollector(Collector):
    """Queue, slots, tokens and cache of each loaded model; 0 while the first is being loaded."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """The figures of now."""
        families: dict[str, Any] = {}
        for service in self._models.services:
            named = labels(service.model)
            for kind, name, text, value in _figures(service):
                family = families.setdefault(name, kind(name, text, labels=list(named)))
                family.add_metric(list(named.values()), float(value))
            stats = service.loaded.stats if service.loaded else Stats()
            gaps = families.setdefault(GAP, HistogramMetricFamily(GAP, GAP_TEXT, labels=[*named]))
            gaps.add_metric(list(named.values()), _buckets(stats), stats.gap_seconds)
        yield from families.values()


def _buckets(stats: Stats) -> list[tuple[str, float]]:
    """How many pauses between two tokens were at most so long: (seconds, number)."""
    ends = [*map(floatToGoString, GAPS), "+Inf"]
    return list(zip(ends, map(float, accumulate(stats.gaps)), strict=True))


def _figures(service: Service) -> Iterator[tuple[type[Family], str, str, float]]:
    """Of one engine: kind, name, meaning, value."""
    engine, config = service.loaded, service.config
    stats, known = (engine.stats, engine.prefixes.stats) if engine else (Stats(), None)
    slots = engine.slots if engine else config.slots
    cached = 0.0
    if engine:
        longest = min(config.max_length_limit, engine.context)
        cached = engine.cache_places / (slots * longest)
    gauges = (
        ("vllm:num_requests_running", "Slots in use", engine.running if engine else 0),
        ("vllm:num_requests_waiting", "Texts in queue", engine.waiting if engine else 0),
        ("vllm:kv_cache_usage_perc", KV_TEXT, min(cached, 1.0)),
        ("llm_ready", "1 while requests are taken", not service.problem),
        ("llm_slots", "Texts that can be written at the same time", slots),
        ("llm_queue_places", "Texts that may wait", config.queue_length),
    )
    asked, found = (known.prompt_tokens, known.cached_tokens) if known else (0, 0)
    counters = (
        ("vllm:prompt_tokens", "Tokens of prompts read", stats.prompt_tokens),
        ("vllm:generation_tokens", "Tokens written", stats.new_tokens),
        ("vllm:prefix_cache_queries", "Tokens of prompts looked up", asked),
        ("vllm:prefix_cache_hits", "Tokens of these found", found),
        ("llm_engine_steps", "Decoding steps", stats.steps),
        ("llm_engine_row_steps", "Rows in these steps", stats.row_steps),
        ("llm_engine_step_seconds", "Time in steps", stats.seconds_in_steps),
        ("llm_engine_failed_steps", "Steps that failed", stats.failed_steps),
        ("llm_out_of_memory", "Times memory ran out", stats.out_of_memory),
    )
    yield from ((GaugeMetricFamily, *gauge) for gauge in gauges)
    yield from ((CounterMetricFamily, *counter) for counter in counters)


class ProcessCollector(Collector):
    """Processor, memory and GPU of this process; on Linux, macOS and Windows alike."""

    def __init__(self) -> None:
        self._process = psutil.Process()

    def collect(self) -> Iterator[Metric]:
        """The figures of now; those of a GPU only where torch uses one."""
        resident, peak, threads = read_process()
        yield CounterMetricFamily(
            "process_cpu_seconds", "Processor time in seconds", value=time.process_time()
        )
        plain = {
            "process_resident_memory_bytes": (resident * 1e6, "Resident memory"),
            "llm_process_peak_memory_bytes": (peak * 1e6, "Most resident memory since the start"),
            "process_start_time_seconds": (self._process.create_time(), "Unix time of the start"),
            "llm_process_threads": (threads, "Threads"),
        }
        if hasattr(self._process, "num_fds"):
            with suppress(psutil.Error):  # some containers hide what is counted
                plain["process_open_fds"] = (self._process.num_fds(), "Open file descriptors")
        used, reserved, busy = read_gpu()
        plain["llm_gpu_memory_used_bytes"] = (used * 1e6, "GPU memory of tensors")
        plain["llm_gpu_memory_reserved_bytes"] = (reserved * 1e6, "GPU memory that torch holds")
        plain["llm_gpu_utilization_ratio"] = (busy / 100, "Share of time that the GPU was busy")
        for name, (value, text) in plain.items():
            if not math.isnan(value):
                yield GaugeMetricFamily(name, text, value=value)
