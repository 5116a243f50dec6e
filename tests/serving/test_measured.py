"""What the service measures and sends: times by a clock of our own, last pieces, seeds."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from helpers.models import load_model
from helpers.settings import GenerationSettings
from serving.client import ServerProcess
from serving.engine.engine import Engine
from serving.engine.jobs import Job

MODEL = "course-gpt-1m"
STEP, PREFILL = 0.5, 4.0  # seconds that each takes by the clock of these tests


class Clock:
    """A clock that only the model's passes move."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        runner = engine._runner
        decode, prefill = runner.decode, runner.prefill
        monkeypatch.setattr(runner, "decode", lambda: (self.wait(STEP), decode()))
        monkeypatch.setattr(runner, "prefill", lambda: (self.wait(PREFILL), prefill())[1])
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def wait(self, seconds: float) -> None:
        self.now += seconds


def finished(engine: Engine, *lengths: int) -> list[Job]:
    """Jobs of these many new tokens, submitted at the same moment and done."""
    jobs = []
    for length in lengths:
        job = Job(10_000, ignore_end=True)
        job.add(GenerationSettings(seed=1), [40, 50, 60], length)
        jobs.append(job)
    for job in jobs:
        engine.submit(job)
    for job in jobs:
        for _ in job.updates():
            pass
    return jobs


def test_times_are_those_of_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one slot: the second waits for the first, and its first token comes after that."""
    engine = Engine(*load_model(MODEL, "cpu"), slots=1)
    engine.start()
    Clock(engine, monkeypatch)
    first, second = (job.sequences[0] for job in finished(engine, 11, 6))
    engine.close()
    assert first.ttft == PREFILL
    assert first.tokens_per_second == 1 / STEP, "ten steps after the first token"
    assert second.ttft == PREFILL + 10 * STEP + PREFILL, "the queue counts"
    assert second.tokens_per_second == 1 / STEP
    assert second.finished - second.job.created == second.ttft + 5 * STEP


def test_a_single_token_has_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(*load_model(MODEL, "cpu"), slots=2)
    engine.start()
    Clock(engine, monkeypatch)
    (job,) = finished(engine, 1)
    engine.close()
    assert (job.sequences[0].ttft, job.sequences[0].tokens_per_second) == (PREFILL, 0.0)


def streamed(http: httpx.Client, path: str, body: dict[str, object], accept: str) -> str:
    answer = http.post(path, json=body, headers={"Accept": accept})
    assert answer.status_code == 200
    if answer.headers["Content-Type"].startswith("text/plain"):
        return answer.text
    text = ""
    for line in answer.text.splitlines():
        if line.startswith("data: {"):
            block = json.loads(line[6:])
            choices = block.get("choices", [])
            text += block.get("text", "") + "".join(c["text"] for c in choices)
    return text


def test_the_last_piece_arrives(server: ServerProcess) -> None:
    """Also where it was held back as the beginning of a stop string that did not come."""
    with httpx.Client(base_url=server.url, timeout=60) as http:
        for seed in range(6):
            body = {"prompt": "The", "seed": seed, "max_new_tokens": 9, "temperature": 1.0}
            body |= {"top_k": 0}
            whole = http.post("/generate", json=body).json()["generated_text"][3:]
            for stop in (None, [whole[-1] + "~~"], [whole[-3:] + "~~", "~"]):
                body["stop"] = stop
                assert streamed(http, "/stream", body, "text/event-stream") == whole
                assert streamed(http, "/stream", body, "text/plain") == whole
                theirs = {k: v for k, v in body.items() if k != "max_new_tokens"}
                theirs |= {"model": MODEL, "max_tokens": 9, "stream": True}
                assert streamed(http, "/v1/completions", theirs, "*/*") == whole


@pytest.mark.parametrize("crowded", [False, True])
def test_two_seeds_are_two_texts_and_one_seed_one(server: ServerProcess, crowded: bool) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as http, ThreadPoolExecutor(8) as pool:

        def native(seed: int) -> str:
            body = {"prompt": "The", "seed": seed, "max_new_tokens": 20}
            return http.post("/generate", json=body).json()["generated_text"]

        def openai(seed: int) -> str:
            body = {"model": MODEL, "prompt": "The", "seed": seed, "max_tokens": 20}
            return http.post("/v1/completions", json=body).json()["choices"][0]["text"]

        for write in (native, openai):
            noise = [pool.submit(write, 100 + n) for n in range(5 if crowded else 0)]
            texts = [write(seed) for seed in (1, 2, 3, 1, 2, 3)]
            assert texts[:3] == texts[3:] and len(set(texts)) == 3
            for future in noise:
                future.result()
