"""What /metrics says: against the answers, against the engine, against vLLM's dashboard."""

from __future__ import annotations

from collections.abc import Callable

import psutil
import pytest

from helpers.settings import GenerationSettings
from serving.api.app import create_app
from serving.config import load_config
from serving.engine.stats import GAPS, Stats
from serving.guard import gauges
from serving.models import Models
from serving.options import Options
from serving.service import Service
from tests.serving.guard.conftest import MODEL, Serve, samples

# What the dashboard in vLLM's own repository asks for, but for what is there for swapping only.
VLLM = """e2e_request_latency_seconds_bucket prompt_tokens_total generation_tokens_total
inter_token_latency_seconds_bucket time_to_first_token_seconds_bucket num_requests_running
num_requests_waiting kv_cache_usage_perc request_prompt_tokens_bucket
request_generation_tokens_bucket request_success_total request_queue_time_seconds_sum
request_prefill_time_seconds_sum request_decode_time_seconds_sum""".split()


def rise(serve: Serve, act: Callable[..., object], **settings: object) -> dict[str, float]:
    """By how much each figure rose while something was done."""
    client = serve(**settings)
    before = samples(client)
    act(client)
    after = samples(client)
    return {name: value - before.get(name, 0) for name, value in after.items()}


def test_tokens_and_times_are_those_of_the_answers(serve: Serve) -> None:
    answers = []

    def ask(client) -> None:
        for new in (4, 9):
            asked = {"prompt": "A server", "max_new_tokens": new, "seed": 1, "stop": []}
            answers.append(client.post("/generate", json=asked).json["metadata"])
        chat = {"model": MODEL, "prompt": ["One", "Two"], "max_tokens": 5, "ignore_eos": True}
        usage = client.post("/v1/completions", json=chat).json["usage"]
        answers.append({"prompt_tokens": usage["prompt_tokens"], "new_tokens": 10})

    rose = rise(serve, ask)
    new = sum(answer["new_tokens"] for answer in answers)
    assert rose["vllm:prompt_tokens_total"] == sum(a["prompt_tokens"] for a in answers)
    assert rose["vllm:generation_tokens_total"] >= new  # end-of-text is a token as well
    assert rose["vllm:request_generation_tokens_sum"] == new
    ended = [rose[f'vllm:request_success_total{{finished_reason="{r}"}}'] for r in REASONS]
    assert sum(ended) == rose["vllm:e2e_request_latency_seconds_count"] == 4
    assert rose["vllm:inter_token_latency_seconds_count"] == rose["llm_engine_row_steps_total"]
    operation = '{gen_ai_operation_name="text_completion"}'
    assert rose[f"gen_ai_server_request_duration_seconds_count{operation}"] == 4
    parts = [rose[f"vllm:request_{part}_time_seconds_sum"] for part in PARTS]
    assert sum(parts) == pytest.approx(rose["vllm:e2e_request_latency_seconds_sum"])
    assert all(part > 0 for part in parts)
    first = answers[0]["time_to_first_token_seconds"] + answers[1]["time_to_first_token_seconds"]
    assert rose["vllm:time_to_first_token_seconds_sum"] > first - 1e-3
    route = '{http_request_method="POST",http_response_status_code="200",http_route="/generate"}'
    assert rose[f"http_server_request_duration_seconds_count{route}"] == 2


REASONS = ("stop", "length", "abort")
PARTS = ("queue", "prefill", "decode")


def test_vllms_dashboard_finds_its_names(serve: Serve) -> None:
    client = serve()
    client.post("/generate", json={"prompt": "A server", "max_new_tokens": 3})
    found = {name.partition("{")[0] for name in samples(client)}
    assert {f"vllm:{name}" for name in VLLM} <= found


def test_errors_are_counted_by_kind(serve: Serve) -> None:
    def wrong(client) -> None:
        client.get("/nowhere")
        client.post("/generate", data="x")
        client.post("/generate", json={"prompt": "x", "temperature": 9})
        client.post("/v1/completions", json={"model": "other", "prompt": "x"})
        client.open("/generate", method="BREW")
        client.post("/generate", json={"prompt": "x"}, headers={"Host": "evil.example"})

    rose = rise(serve, wrong)
    kinds = {name: n for name, n in rose.items() if name.startswith("llm_errors_total") and n}
    assert {name.split('"')[1]: n for name, n in kinds.items()} == {
        "not_found": 2,
        "unsupported_media_type": 1,
        "bad_request": 1,
        "method_not_allowed": 1,
        "wrong_host": 1,
    }
    assert not any("BREW" in name for name in rose)  # a label that strangers choose has no end


@pytest.mark.parametrize("route", ["/generate", "/stream"])
def test_timeouts_are_counted_whole_or_streamed(serve: Serve, route: str) -> None:
    asked = {"prompt": "A server", "max_new_tokens": 150}
    events = {"Accept": "text/event-stream"}
    rose = rise(serve, lambda c: c.post(route, json=asked, headers=events), request_timeout=1e-9)
    assert rose['llm_errors_total{error_type="timeout"}'] == 1
    assert rose["vllm:e2e_request_latency_seconds_count"] == 0


def test_a_client_that_leaves_is_counted(serve: Serve) -> None:
    def leave(client) -> None:
        asked = {"prompt": "A server", "max_new_tokens": 150}
        answer = client.post("/stream", json=asked, buffered=False)
        next(answer.response)
        answer.close()

    rose = rise(serve, leave)
    assert rose['llm_errors_total{error_type="client_gone"}'] == 1
    assert rose['vllm:request_success_total{finished_reason="abort"}'] == 1


def test_a_service_that_loads_says_so() -> None:
    client = create_app(Models(Service(load_config(model_name=MODEL, slots=3)))).test_client()
    found = samples(client)
    assert (found["llm_ready"], found["llm_slots"], found["vllm:num_requests_running"]) == (0, 3, 0)


def test_what_runs_and_waits_is_shown(serve: Serve, loaded: Service) -> None:
    client, engine = serve(), loaded.engine
    settings = GenerationSettings(max_new_tokens=400, seed=1, temperature=1.0)
    ids = loaded.tokenizer.encode("A server")
    job = loaded.start([ids] * 48, settings, Options(ignore_end=True))
    seen: list[tuple[float, float]] = []
    cached = 0.0
    for _ in range(1000):
        found = samples(client)
        seen.append((found["vllm:num_requests_running"], found["vllm:num_requests_waiting"]))
        cached = max(cached, found["vllm:kv_cache_usage_perc"])
        if seen[-1] == (engine.slots, 48 - engine.slots) and cached:
            break
    assert (engine.slots, 48 - engine.slots) in seen
    assert 0 < cached <= 1
    job.cancel()


def test_the_process_and_a_gpu(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    found = samples(serve())
    assert found["process_resident_memory_bytes"] > 50e6
    assert found["llm_process_peak_memory_bytes"] >= found["process_resident_memory_bytes"] * 0.99
    assert found["process_cpu_seconds_total"] > 0
    monkeypatch.setattr(gauges, "read_gpu", lambda: (1.5, 2.0, 40.0))
    found = samples(serve())
    assert found["llm_gpu_memory_used_bytes"] == 1.5e6
    assert found["llm_gpu_utilization_ratio"] == 0.4


def test_pauses_between_tokens_fall_into_their_buckets() -> None:
    stats = Stats()
    stats.step(3, seconds=0.01, gap=GAPS[2])
    stats.step(2, seconds=0.01, gap=1000.0)
    assert stats.gaps == [0, 0, 3] + [0] * (len(GAPS) - 3) + [2]
    assert stats.gap_seconds == 3 * GAPS[2] + 2000


def test_names_keep_their_colon_whatever_form_is_asked_for(serve: Serve) -> None:
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    page = serve().get("/metrics", headers={"Accept": accept})
    assert page.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert "\nvllm:num_requests_running{" in page.text and "vllm_" not in page.text


def test_two_services_count_for_themselves(serve: Serve) -> None:
    one, other = serve(), serve()
    one.get("/nowhere")
    assert samples(one)['llm_errors_total{error_type="not_found"}'] == 1
    assert samples(other)['llm_errors_total{error_type="not_found"}'] == 0


def test_what_the_system_hides_leaves_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """In some containers a process may not count its own open files."""

    def hidden(process: psutil.Process) -> int:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "num_fds", hidden, raising=False)
    names = {metric.name for metric in gauges.ProcessCollector().collect()}
    assert "process_open_fds" not in names and "process_resident_memory_bytes" in names
