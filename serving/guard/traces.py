"""Traces: one span a request, with queue, prefill and decode of each text below it. (Lesson 09.)

Off unless LLM_TRACES names an exporter of OpenTelemetry: `console`, which is part of its SDK,
`otlp_proto_http` (OTEL_EXPORTER_OTLP_ENDPOINT says where to), or one of another package.
Spans are made when a request is over, from the times in its record, so that a step of the engine
costs nothing more. They hold figures and names, never what was asked or answered.
https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/ names the attributes.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from serving.config import ConfigError
from serving.engine.jobs import Sequence
from serving.guard.logs import QUIET
from serving.guard.metrics import operation
from serving.guard.records import Record
from system.errors import see

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

GROUP = "opentelemetry_traces_exporter"  # where packages register their exporters
NAME = "llm-basics"


def processor(name: str) -> SpanProcessor:
    """What sends spans to an exporter, by a thread of its own.

    Raises:
        ConfigError: OpenTelemetry or the exporter is not installed; one line.
    """
    try:
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise ConfigError(
            f"LLM_TRACES={name} needs OpenTelemetry: pip install opentelemetry-sdk. {see('traces')}"
        ) from None
    there = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in there:
        known = ", ".join(sorted(there)) or "none"
        raise ConfigError(
            f"LLM_TRACES={name}: no such exporter; installed: {known}. {see('traces')}"
        )
    try:
        exporter = there[name].load()()
    except Exception as error:  # an exporter's own settings, or a package of its own is missing
        raise ConfigError(f"LLM_TRACES={name} cannot be used: {error}. {see('traces')}") from None
    return BatchSpanProcessor(exporter)


class Traces:
    """Turns records into spans."""

    def __init__(self, through: SpanProcessor) -> None:
        """Spans go through a processor, which sends them on.

        Args:
            through: from `processor`, or another.
        """
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider

        self._provider = TracerProvider(resource=Resource.create({SERVICE_NAME: NAME}))
        self._provider.add_span_processor(through)
        self._tracer = self._provider.get_tracer(NAME)
        _traces.add(self)

    def add(self, record: Record) -> None:
        """Trace a request that is over."""
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        if record.route in QUIET and record.status < 400:
            return
        caller = TraceContextTextMapPropagator().extract({"traceparent": record.traceparent})
        span = self._tracer.start_span(
            f"{record.method} {record.route or 'unknown'}",
            caller,
            trace.SpanKind.SERVER,
            attributes=_of_request(record),
            start_time=_nanoseconds(record, record.began),
        )
        if record.error:
            span.set_status(trace.StatusCode.ERROR, record.error)
        below = trace.set_span_in_context(span)
        for row in record.job.sequences if record.job else ():
            for name, start, end in _parts(row, record.began + record.seconds):
                part = self._tracer.start_span(
                    name,
                    below,
                    attributes={"llm.text": row.index} | _of_part(name, row),
                    start_time=_nanoseconds(record, start),
                )
                part.end(_nanoseconds(record, end))
        span.end(_nanoseconds(record, record.began + record.seconds))

    def flush(self, seconds: float) -> None:
        """Send what is still to be sent, but wait no longer than this."""
        self._provider.force_flush(int(1000 * seconds))


_traces: WeakSet[Traces] = WeakSet()


def flush_traces(seconds: float = 2.0) -> None:
    """Send what is still to be sent, before the process ends."""
    for traces in list(_traces):
        traces.flush(seconds)


def _nanoseconds(record: Record, moment: float) -> int:
    """Unix time of a time.perf_counter()."""
    return int((record.at + moment - record.began) * 1e9)


def _parts(row: Sequence, over: float) -> list[tuple[str, float, float]]:
    """Queue, prefill and decode of a text, as far as they began: (name, start, end)."""
    end = row.finished or over
    begins = {"queue": row.job.created, "prefill": row.started, "decode": row.first_token}
    begun = [(name, start) for name, start in begins.items() if start]
    ends = [start for _, start in begun[1:]] + [end]
    return [(name, start, until) for (name, start), until in zip(begun, ends, strict=True)]


def _of_part(name: str, row: Sequence) -> dict[str, Any]:
    if name == "prefill":
        return {
            "gen_ai.usage.input_tokens": row.prompt_tokens,
            "llm.cached_tokens": row.cached_tokens,
        }
    return {"gen_ai.usage.output_tokens": row.new_tokens} if name == "decode" else {}


def _of_request(record: Record) -> dict[str, Any]:
    """What a request's span says of it."""
    said: dict[str, Any] = {
        "http.request.method": record.method,
        "http.route": record.route,
        "http.response.status_code": record.status,
        "llm.request_id": record.id,
    }
    if record.error:
        said["error.type"] = record.error
    if record.cached:
        said["llm.response_cached"] = True
    if record.service:
        said["gen_ai.request.model"] = record.service.model
    if record.job:
        rows = record.job.sequences
        said |= {
            "gen_ai.operation.name": operation(record),
            "gen_ai.usage.input_tokens": sum(row.prompt_tokens for row in rows),
            "gen_ai.usage.output_tokens": sum(row.new_tokens for row in rows),
            "gen_ai.response.finish_reasons": [row.finish_reason for row in rows],
        }
    return said
