"""The response cache: what hits, what must not, how long and how much it keeps, and for whom."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from flask import g

from serving.api.schemas import GenerateRequest, Live
from serving.config import load_config
from serving.guard.cache import ResponseCache
from serving.guard.fingerprint import fingerprint
from serving.guard.logs import flush_logs
from serving.guard.metrics import Metrics
from serving.guard.records import Record
from serving.models import Models
from serving.service import Service
from tests.serving.guard.conftest import MODEL, Client, Serve, samples

ASKED = {"prompt": "A server", "max_new_tokens": 4, "seed": 1, "top_k": 20}
OTHERS = {  # another value of each parameter
    **{"prompt": "A client", "max_new_tokens": 5, "seed": 2, "top_k": 21, "top_p": 0.9},
    **{"temperature": 0.0, "repetition_penalty": 1.2, "no_repeat_ngram_size": 2, "stop": ["x"]},
    **{"num_return_sequences": 2, "logit_bias": {"5": 1.0}, "max_length": 30},
}
KEYS = ("sk-first-of-all-keys", "sk-another-of-the-keys")


def ask(client: Client, route: str = "/generate", **more: object) -> str | None:
    answer = client.post(route, json=ASKED | more)
    assert answer.status_code == 200, answer.text
    return answer.headers.get("X-Cache")


def test_a_hit_is_the_same_answer_marked_in_body_and_header(serve: Serve, tmp_path) -> None:
    client = serve(response_cache_mb=1, log_file=str(tmp_path / "log"), tokens_per_minute=12)
    first, again = (client.post("/generate", json=ASKED) for _ in range(2))
    assert (first.headers["X-Cache"], again.headers["X-Cache"]) == ("MISS", "HIT")
    assert again.json == first.json | {"cached": True} and "cached" not in first.json
    found = samples(client)
    assert found["llm_response_cache_hits_total"] == found["llm_response_cache_misses_total"] == 1
    assert found["llm_response_cache_bytes"] > len(first.data)
    flush_logs()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert "cached" not in lines[0] and lines[1]["cached"] is True


@pytest.mark.parametrize("name", OTHERS)
def test_whatever_changes_the_answer_is_part_of_the_key(serve: Serve, name: str) -> None:
    client = serve(response_cache_mb=1)
    assert ask(client) == "MISS"
    changed = {name: OTHERS[name]}
    if name == "max_length":
        changed["max_new_tokens"] = ...
    body = {k: v for k, v in (ASKED | changed).items() if v is not ...}
    answers = [client.post("/generate", json=body) for _ in range(2)]
    assert [answer.headers["X-Cache"] for answer in answers] == ["MISS", "HIT"]
    assert ask(client) == "HIT"


def test_no_parameter_is_left_out_of_that_test() -> None:
    assert set(GenerateRequest.model_fields) == set(OTHERS) | {"model"}  # see test_models.py


def test_server_weights_and_route_are_part_of_it(serve: Serve, loaded: Service) -> None:
    metrics = Metrics(Models(loaded))
    app = serve().application
    settings = {"model_name": MODEL, "response_cache_mb": 1}
    body = GenerateRequest(**ASKED)
    keys = set()
    changes = ({}, {"default_temperature": 0.3}, {"default_max_length": 49}, {"dtype": "bfloat16"})
    for change in (*changes, "weights", "/b"):
        service = Service(load_config(**settings, **(change if isinstance(change, dict) else {})))
        service.loaded = loaded.loaded
        service.weights = "other" if change == "weights" else "some"
        path = change if change == "/b" else "/a"
        with app.test_request_context(path):
            g.record = Record("1", "POST", path, path)
            cache = ResponseCache(service.config, metrics)
            keys.add(cache.key(service, body, body.settings()))
    assert len(keys) == 6 and "" not in keys


def test_random_text_and_streams_are_never_kept(serve: Serve) -> None:
    client = serve(response_cache_mb=1)
    free = {"prompt": "A server", "max_new_tokens": 12, "temperature": 2.0, "top_k": 0}
    texts = {client.post("/generate", json=free).json["generated_text"] for _ in range(4)}
    assert len(texts) > 1
    assert "X-Cache" not in client.post("/generate", json=free).headers
    assert "X-Cache" not in client.post("/stream", json=ASKED).headers
    assert samples(client)["llm_response_cache_bytes"] == 0
    greedy = serve(response_cache_mb=1, default_temperature=0)
    plain = {"prompt": "A server", "max_new_tokens": 3}
    found = [greedy.post("/generate", json=plain).headers["X-Cache"] for _ in range(2)]
    assert found == ["MISS", "HIT"]


def test_openais_route(serve: Serve) -> None:
    client = serve(response_cache_mb=1)
    asked = {"model": MODEL, "prompt": "A server", "max_tokens": 4, "temperature": 0}
    first, again = (client.post("/v1/completions", json=asked).json for _ in range(2))
    assert again == first | {"cached": True}
    streamed = client.post("/v1/completions", json=asked | {"stream": True})
    assert streamed.mimetype == "text/event-stream" and "X-Cache" not in streamed.headers
    wrong = client.post("/v1/completions", json=asked | {"model": "other"})
    assert wrong.status_code == 404


@pytest.mark.parametrize("shared", [False, True])
def test_keys_share_nothing_unless_they_may(serve: Serve, shared: bool) -> None:
    client = serve(response_cache_mb=1, api_keys=",".join(KEYS), response_cache_shared=shared)
    one, other = ({"Authorization": f"Bearer {key}"} for key in KEYS)

    def found(headers: dict[str, str]) -> str:
        return client.post("/generate", json=ASKED, headers=headers).headers["X-Cache"]

    assert found(one) == "MISS" and found(one) == "HIT"
    assert found(other) == ("HIT" if shared else "MISS")
    assert client.post("/cache/clear").status_code == 401
    assert client.post("/cache/clear", headers=other).json == {"cleared": 1}
    assert found(one) == ("MISS" if shared else "HIT")


def test_it_can_be_cleared_and_is_off_by_default(serve: Serve) -> None:
    client = serve(response_cache_mb=1)
    ask(client)
    ask(client, prompt="Another")
    assert client.post("/cache/clear").json == {"cleared": 2}
    assert ask(client) == "MISS"
    page = {"Origin": "http://evil.example"}
    assert client.post("/cache/clear", headers=page).status_code == 403
    off = serve()
    assert [ask(off), ask(off)] == [None, None]
    assert off.post("/cache/clear").json == {"cleared": 0}


def test_it_is_bounded_in_bytes_and_age(serve: Serve, loaded: Service) -> None:
    now = [0.0]
    service = Service(load_config(response_cache_mb=1, response_cache_seconds=60))
    service.loaded = loaded.loaded
    cache = ResponseCache(service.config, Metrics(Models(service)), lambda: now[0])
    asked = [GenerateRequest(prompt=f"Prompt {n}", seed=1) for n in range(5)]
    with serve().application.test_request_context("/generate"):
        g.record = Record("1", "POST", "/generate", "/generate")
        keys = [cache.key(service, body, body.settings()) for body in asked]
        for key in keys:
            cache.keep(key, Live.model_construct(status="x" * 300_000))
        kept = [cache.find(key) is not None for key in keys]
        assert kept == [False, False, True, True, True]
        cache.keep(keys[0], Live.model_construct(status="x" * 2_000_000))
        assert cache.find(keys[0]) is None
        now[0] = 61.0
        assert cache.find(keys[4]) is None


def test_the_fingerprint_is_of_the_weights() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4)).bfloat16()
    same = copy.deepcopy(model)
    assert fingerprint(model) == fingerprint(same) and len(fingerprint(model)) == 64
    with torch.no_grad():
        same[0].weight[1, 2] += 1
    assert fingerprint(same) != fingerprint(model)
    assert fingerprint(copy.deepcopy(model).float()) != fingerprint(model)


@pytest.mark.parametrize("megabytes", [0, 1])
def test_it_is_taken_at_the_start_where_answers_are_kept(megabytes: int) -> None:
    service = Service(load_config(model_name=MODEL, response_cache_mb=megabytes))
    service.load_now()
    service.close()
    assert len(service.weights) == (64 if megabytes else 0)
