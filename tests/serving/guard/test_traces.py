"""Traces: the spans of a request against its answer, what they never hold, what is missing."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from serving.api import app as application
from serving.config import ConfigError
from serving.guard.traces import flush_traces, processor
from tests.conftest import ROOT
from tests.serving.guard.conftest import MODEL, Client, Serve

ASKED = {"prompt": "The secret garden", "max_new_tokens": 5, "seed": 1}
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """The SDK's exporter that keeps spans in memory, in place of the named one."""
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(application, "processor", lambda name: SimpleSpanProcessor(exporter))
    return exporter


def seconds(span: ReadableSpan) -> float:
    assert span.start_time and span.end_time
    return (span.end_time - span.start_time) / 1e9


def test_a_request_is_a_span_with_queue_prefill_and_decode(
    serve: Serve, kept: InMemorySpanExporter
) -> None:
    client: Client = serve(traces="console")
    answer = client.post("/generate", json=ASKED, headers={"traceparent": CALLER})
    *parts, whole = kept.get_finished_spans()
    assert [part.name for part in parts] == ["queue", "prefill", "decode"]
    assert all(part.parent.span_id == whole.context.span_id for part in parts)
    assert f"{whole.context.trace_id:032x}" == CALLER.split("-")[1]
    said, meta = whole.attributes, answer.json["metadata"]
    assert whole.name == "POST /generate" and said["http.response.status_code"] == 200
    assert said["gen_ai.request.model"] == MODEL
    assert said["gen_ai.usage.input_tokens"] == meta["prompt_tokens"]
    assert said["gen_ai.usage.output_tokens"] == meta["new_tokens"]
    assert said["llm.request_id"] == answer.headers["X-Request-ID"]
    first = seconds(parts[0]) + seconds(parts[1])
    assert first == pytest.approx(meta["time_to_first_token_seconds"], abs=1e-3)
    assert first + seconds(parts[2]) <= seconds(whole) + 1e-6
    assert "secret" not in " ".join(span.to_json() for span in (*parts, whole))


@pytest.fixture
def collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Its address, and what it was sent: (path, body), as OTLP over HTTP has it."""
    received: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            packed = self.headers.get("Content-Encoding") == "gzip"
            assert self.headers["Content-Type"] == "application/x-protobuf"
            received.append((self.path, gzip.decompress(body) if packed else body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *said: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()
        thread.join()


def test_spans_reach_a_collector(
    serve: Serve,
    collector: tuple[str, list[tuple[str, bytes]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """OTLP over HTTP, by the standard's own setting; that setting alone sends nothing."""
    url, received = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    serve().post("/generate", json=ASKED)
    flush_traces()
    assert received == []
    answer = serve(traces="otlp_proto_http").post("/generate", json=ASKED)
    flush_traces(30)
    ((path, body),) = received
    assert path == "/v1/traces"
    (sent,) = ExportTraceServiceRequest.FromString(body).resource_spans
    named = {label.key: label.value.string_value for label in sent.resource.attributes}
    assert named["service.name"] == "llm-basics"
    *parts, whole = sent.scope_spans[0].spans
    assert [part.name for part in parts] == ["queue", "prefill", "decode"]
    assert {part.parent_span_id for part in parts} == {whole.span_id}
    said = {label.key: label.value for label in whole.attributes}
    assert said["llm.request_id"].string_value == answer.headers["X-Request-ID"]
    new = answer.json["metadata"]["new_tokens"]
    assert said["gen_ai.usage.output_tokens"].int_value == new
    assert b"secret" not in body


def test_errors_are_marked_and_probes_left_out(serve: Serve, kept: InMemorySpanExporter) -> None:
    client: Client = serve(traces="console")
    client.get("/health")
    client.post("/generate", json=ASKED | {"temperature": 9})
    client.post("/generate", json=ASKED | {"num_return_sequences": 2})
    wrong, *parts, whole = kept.get_finished_spans()
    assert wrong.attributes["error.type"] == wrong.status.description == "bad_request"
    assert [part.attributes["llm.text"] for part in parts] == [0, 0, 0, 1, 1, 1]
    assert whole.status.is_unset


def test_what_is_missing_is_said_in_one_line() -> None:
    with pytest.raises(
        ConfigError, match="LLM_TRACES=pigeon: no such exporter; installed: .*conso"
    ):
        processor("pigeon")
    hidden = "import sys; sys.modules['opentelemetry.sdk.trace.export'] = None; "
    code = hidden + "from serving.__main__ import main; sys.exit(main())"
    environment = os.environ | {"LLM_TRACES": "console", "LLM_PORT": "0"}
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == 2 and line.startswith("LLM_TRACES=console needs OpenTelemetry: pip")
