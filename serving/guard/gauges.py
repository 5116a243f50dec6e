"""Figures that are read when `/metrics` is asked for: the engine's, the process's. (Lesson 09.)

The engine does no more than count (`serving.engine.stats`); what has to be written for
Prometheus is written in the thread that answers it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import accumulate

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
from serving.service import Service


class EngineCollector(Collector):
    """Queue, slots, tokens and cache; 0 while the model is being loaded."""

    def __init__(self, service: Service, labels: Mapping[str, str]) -> None:
        self._service, self._labels = service, labels

    def collect(self) -> Iterator[Metric]:
        """The figures of now."""
        service, config = self._service, self._service.config
        engine = service.loaded
        stats = engine.stats if engine else Stats()
        slots = engine.slots if engine else config.slots
        cached = 0.0
        if engine:
            longest = min(config.max_length_limit, engine.context)
            cached = engine.cache_places / (slots * longest)
        yield self._gauge(
            "vllm:num_requests_running", "Slots in use", engine.running if engine else 0
        )
        yield self._gauge(
            "vllm:num_requests_waiting", "Texts in queue", engine.waiting if engine else 0
        )
        yield self._gauge(
            "vllm:kv_cache_usage_perc",
            "Places of the key-value cache in use, of slots x longest text; 1 is all",
            min(cached, 1.0),
        )
        yield self._counter("vllm:prompt_tokens", "Tokens of prompts read", stats.prompt_tokens)
        yield self._counter("vllm:generation_tokens", "Tokens written", stats.new_tokens)
        known = engine.prefixes.stats if engine else None
        asked, found = (known.prompt_tokens, known.cached_tokens) if known else (0, 0)
        yield self._counter("vllm:prefix_cache_queries", "Tokens of prompts looked up", asked)
        yield self._counter("vllm:prefix_cache_hits", "Tokens of these found", found)
        yield self._gaps(stats)
        yield self._gauge("llm_ready", "1 while requests are taken", not service.problem)
        yield self._gauge("llm_slots", "Texts that can be written at the same time", slots)
        yield self._gauge("llm_queue_places", "Texts that may wait", config.queue_length)
        yield self._counter("llm_engine_steps", "Decoding steps", stats.steps)
        yield self._counter("llm_engine_row_steps", "Rows in these steps", stats.row_steps)
        yield self._counter("llm_engine_step_seconds", "Time in steps", stats.seconds_in_steps)
        yield self._counter("llm_engine_failed_steps", "Steps that failed", stats.failed_steps)
        yield self._counter("llm_out_of_memory", "Times memory ran out", stats.out_of_memory)

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, text, labels=list(self._labels))
        family.add_metric(list(self._labels.values()), float(value))
        return family

    def _counter(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(name, text, labels=list(self._labels))
        family.add_metric(list(self._labels.values()), value)
        return family

    def _gaps(self, stats: Stats) -> Metric:
        """The time between two tokens of a text, one observation a token."""
        ends = [*map(floatToGoString, GAPS), "+Inf"]
        buckets = list(zip(ends, map(float, accumulate(stats.gaps)), strict=True))
        family = HistogramMetricFamily(
            "vllm:inter_token_latency_seconds",
            "Time between two tokens of a text",
            labels=list(self._labels),
        )
        family.add_metric(list(self._labels.values()), buckets, stats.gap_seconds)
        return family


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
