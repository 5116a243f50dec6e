"""`GET /metrics`: what requests were like, for Prometheus. (Lesson 09.)

Names are vLLM's where it has one for the same thing, so that a dashboard made for vLLM reads
most of them, and OpenTelemetry's where its conventions have one (dots written as `_`). What
neither names begins with `llm_`. Times are in seconds.
"""

from __future__ import annotations

from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from serving.engine.jobs import Sequence
from serving.engine.stats import GAPS
from serving.guard.gauges import EngineCollector, ProcessCollector, labels
from serving.guard.records import Record
from serving.models import Models

# vLLM's, and finer at the lower end: small models answer in milliseconds.
Buckets = tuple[float, ...]
FIRST_TOKEN: Buckets = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75)
FIRST_TOKEN += (1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560)
WHOLE: Buckets = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15)
WHOLE += (20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
COUNTS: Buckets = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)
COUNTS += (50_000, 100_000)
REASONS = {  # vLLM's words for how a text ends
    "end_of_text": "stop",
    "stop": "stop",
    "length": "length",
    "cancelled": "abort",
    "": "abort",
}
KINDS = (  # of errors, so that each is there from the start, with 0
    *("bad_request", "unauthorized", "forbidden", "not_found", "method_not_allowed", "too_large"),
    *("unsupported_media_type", "wrong_host", "rate_limited", "client_gone", "queue_full"),
    *("not_ready", "timeout", "generation_failed", "internal"),
)
METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}


class Metrics:
    """The figures of one server, in a registry of its own.

    Attributes:
        registry: what /metrics shows; others may register more.
        lost_lines: log lines that could not be written.
        cache_hits, cache_misses, cache_bytes: of the response cache.
    """

    def __init__(self, models: Models) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(EngineCollector(models))
        self.registry.register(ProcessCollector())
        self._http = self._histogram(
            "http_server_request_duration_seconds",
            "Time from a request to the end of its answer",
            WHOLE,
            *("http_request_method", "http_route", "http_response_status_code"),
        )
        self._errors = Counter(
            "llm_errors", "Requests that failed, by kind", ["error_type"], registry=self.registry
        )
        for kind in KINDS:
            self._errors.labels(kind)
        self.lost_lines = Counter(
            "llm_log_lines_lost", "Log lines that could not be written", registry=self.registry
        )
        self.cache_hits = Counter(
            "llm_response_cache_hits", "Answers from the cache", registry=self.registry
        )
        self.cache_misses = Counter(
            "llm_response_cache_misses", "Answers that might have been", registry=self.registry
        )
        self.cache_bytes = Gauge(
            "llm_response_cache_bytes", "What it takes up", registry=self.registry
        )
        by_reason = [*labels(""), "finished_reason"]
        self._ended = Counter(
            "vllm:request_success", "Texts that ended", by_reason, registry=self.registry
        )
        self._prompt = self._by_model("request_prompt_tokens", "Tokens of a prompt", COUNTS)
        self._new = self._by_model("request_generation_tokens", "New tokens of a text", COUNTS)
        self._first = self._by_model(
            "time_to_first_token_seconds", "Time to first token, queue included", FIRST_TOKEN
        )
        self._per_token = self._by_model(
            "request_time_per_output_token_seconds", "Mean time per further token", GAPS
        )
        self._e2e = self._by_model("e2e_request_latency_seconds", "Time to a text's end", WHOLE)
        self._queue = self._by_model("request_queue_time_seconds", "Time before a slot", WHOLE)
        self._prefill = self._by_model(
            "request_prefill_time_seconds", "Time from a slot to the first token", WHOLE
        )
        self._decode = self._by_model(
            "request_decode_time_seconds", "Time from the first token to the last", WHOLE
        )
        self._gen_ai_whole = self._gen_ai("request_duration", "Time to a text's end", WHOLE)
        self._gen_ai_first = self._gen_ai("time_to_first_token", "To the first token", FIRST_TOKEN)
        self._gen_ai_token = self._gen_ai("time_per_output_token", "Per further token", GAPS)
        self._begin(models.first.model)

    def _begin(self, model: str) -> None:
        """A model's figures are there from the start, with 0: a rate needs two values."""
        for made in (self._prompt, self._new, self._first, self._per_token, self._e2e):
            made.labels(**labels(model))
        for made in (self._queue, self._prefill, self._decode):
            made.labels(**labels(model))
        for reason in ("stop", "length", "abort"):
            self._ended.labels(**labels(model), finished_reason=reason)

    def _gen_ai(self, name: str, text: str, buckets: Buckets) -> Histogram:
        """One of OpenTelemetry's, labelled with operation and model."""
        about = ("gen_ai_operation_name", "gen_ai_request_model")
        return self._histogram(f"gen_ai_server_{name}_seconds", text, buckets, *about)

    def _histogram(self, name: str, text: str, buckets: Buckets, *labels: str) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def _by_model(self, name: str, text: str, buckets: Buckets) -> Histogram:
        return self._histogram(f"vllm:{name}", text, buckets, *labels(""))

    def add(self, record: Record) -> None:
        """Count a request that is over."""
        method = record.method if record.method in METHODS else "_OTHER"  # OpenTelemetry's word
        self._http.labels(method, record.route or "none", record.status).observe(record.seconds)
        if record.error:
            self._errors.labels(record.error).inc()
        if record.job and record.service:
            for row in record.job.sequences:
                self._add_text(row, operation(record), record.service.model)

    def _add_text(self, row: Sequence, operation: str, model: str) -> None:
        named = labels(model)
        reason = REASONS.get(row.finish_reason, "error")
        self._ended.labels(**named, finished_reason=reason).inc()
        if row.started:
            self._queue.labels(**named).observe(row.started - row.job.created)
        if row.started and row.first_token:
            self._first.labels(**named).observe(row.ttft)
            self._gen_ai_first.labels(operation, model).observe(row.ttft)
            self._prefill.labels(**named).observe(row.first_token - row.started)
        if reason not in ("stop", "length") or not row.finished:
            return
        whole = row.finished - row.job.created
        self._prompt.labels(**named).observe(row.prompt_tokens)
        self._new.labels(**named).observe(row.new_tokens)
        self._e2e.labels(**named).observe(whole)
        self._gen_ai_whole.labels(operation, model).observe(whole)
        if row.first_token:
            self._decode.labels(**named).observe(row.finished - row.first_token)
        if row.tokens_per_second:
            self._per_token.labels(**named).observe(1 / row.tokens_per_second)
            self._gen_ai_token.labels(operation, model).observe(1 / row.tokens_per_second)


def operation(record: Record) -> str:
    """What was asked for, in OpenTelemetry's words."""
    return "chat" if "chat" in record.route else "text_completion"


def metrics_routes(metrics: Metrics) -> APIBlueprint:
    """The route that Prometheus asks."""
    api = APIBlueprint("metrics", __name__, abp_tags=[Tag(name="status")])
    text = {"text/plain": {"schema": {"type": "string"}}}
    shown = {"description": "A line a figure.", "content": text}

    @api.get("/metrics", responses={200: shown})
    def show() -> Response:
        """Figures for Prometheus.

        Always in its own text form: in OpenMetrics' the library writes vllm_… for vllm:…
        """
        page = generate_latest(metrics.registry)
        return Response(page, content_type=CONTENT_TYPE_PLAIN_0_0_4)

    return api
