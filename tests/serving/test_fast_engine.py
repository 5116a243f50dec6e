"""ENGINE=ctranslate2: the same contract as torch's engine, what it cannot do, its conversion."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from helpers.models import locate
from helpers.sampling import FORMS
from helpers.settings import GenerationSettings
from serving.client import APIError, Client, ServerProcess
from serving.config import load_config
from serving.engine.fast import conversion
from serving.engine.fast.batch import RAGGED_TOKENS, alike, sampling
from serving.engine.fast.conversion import converted, fingerprint
from serving.engine.fast.loading import fast_engine
from serving.engine.fast.restrictions import RESTRICTIONS
from serving.engine.jobs import Job, NotReadyError, TimeLimitError
from system.environment import ROOT
from system.errors import ParameterError
from tests.serving.test_api import (  # the same tests, asked of this engine's server
    MODEL,
    ai,  # noqa: F401
    client,  # noqa: F401
    fill,
    http,  # noqa: F401
    test_a_wrong_parameter_is_named_with_its_range,  # noqa: F401
    test_documented,  # noqa: F401
    test_long_prompt_without_a_length,  # noqa: F401
    test_openai_errors,  # noqa: F401
    test_openai_token_ids_and_stop,  # noqa: F401
    test_pieces_come_while_the_text_is_written,  # noqa: F401
    test_status_routes,  # noqa: F401
    test_streams_are_of_one_text,  # noqa: F401
)

pytestmark = pytest.mark.slow  # two servers, three conversions
PROMPTS = (
    "The",
    "Machine learning is",
    "A neural network learns from examples because it is told how wrong it was, and then",
    "word " * 40,
)
GREEDY = {"temperature": 0, "max_new_tokens": 24}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("converted")


@pytest.fixture(scope="module")
def fast(cache: Path) -> Iterator[ServerProcess]:
    """The server of this module."""
    settings = {"engine": "ctranslate2", "engine_cache": cache, "slots": 8, "queue_length": 40}
    with ServerProcess("fast", model=MODEL, request_timeout=20, **settings) as process:
        yield process


@pytest.fixture(scope="module", name="server")
def server_of_the_tests_of_the_api(fast: ServerProcess) -> ServerProcess:
    return fast


@pytest.fixture(scope="module")
def torchs() -> Iterator[ServerProcess]:
    """The readable default, with the same weights."""
    with ServerProcess("torchs", model=MODEL) as process:
        yield process


def test_greedy_texts_are_torchs(client: Client, torchs: ServerProcess) -> None:  # noqa: F811
    """Alone and together, whatever the lengths of prompts and texts."""
    asked: list[dict[str, Any]] = [
        {"prompt": prompt} | GREEDY | {"max_new_tokens": tokens} | more
        for more in ({}, {"no_repeat_ngram_size": 2}, {"repetition_penalty": 1.3})
        for prompt, tokens in zip(PROMPTS, (5, 40, 24, 9), strict=True)
    ]
    asked += [{"prompt": PROMPTS[1], "logit_bias": {"262": -100}} | GREEDY]
    with Client(torchs.url) as other:
        want = [other.generate(**one).text for one in asked]
    assert [client.generate(**one).text for one in asked] == want
    with ThreadPoolExecutor(len(asked)) as pool:
        together = list(pool.map(lambda one: client.generate(**one).text, asked))
    assert together == want


def test_stops_and_streams(client: Client) -> None:  # noqa: F811
    whole = client.generate(PROMPTS[1], **GREEDY).text.removeprefix(PROMPTS[1])
    assert "".join(client.stream(PROMPTS[1], **GREEDY)) == whole
    stop = whole[len(whole) // 2 :][:3]
    cut = client.generate(PROMPTS[1], **GREEDY, stop=[stop])
    assert cut.text.removeprefix(PROMPTS[1]) == whole[: whole.index(stop)]
    assert cut.metadata["finish_reason"] == "stop"


def test_logprobs_are_torchs(ai: openai.OpenAI, torchs: ServerProcess) -> None:  # noqa: F811
    asked: dict[str, Any] = {"model": MODEL, "prompt": PROMPTS[1], "max_tokens": 6, "logprobs": 3}
    asked |= {"temperature": 0}
    mine = ai.completions.create(**asked).choices[0].logprobs
    other = openai.OpenAI(base_url=f"{torchs.url}/v1", api_key="-", max_retries=0)
    theirs = other.completions.create(**asked).choices[0].logprobs
    assert mine and theirs and mine.tokens == theirs.tokens
    assert mine.token_logprobs == pytest.approx(theirs.token_logprobs, abs=1e-3)
    assert [list(one) for one in mine.top_logprobs or []] == [
        list(one) for one in theirs.top_logprobs or []
    ]


def test_several_texts_differ_and_texts_may_be_empty(ai: openai.OpenAI) -> None:  # noqa: F811
    answer = ai.completions.create(model=MODEL, prompt=["The", "A model"], n=3, max_tokens=8)
    assert len({choice.text for choice in answer.choices}) == 6
    nothing = ai.completions.create(model=MODEL, prompt="The", max_tokens=0, echo=True)
    assert nothing.choices[0].text == "The"


REFUSED: dict[str, dict[str, Any]] = {
    "seed": {"seed": 1},
    "logit_bias": {"logit_bias": {"262": 5}},
    "echo": {"echo": True, "logprobs": 1},
    "logprobs": {"logprobs": 1, "repetition_penalty": 1.2},
}


def test_what_it_cannot_do_is_told(http: httpx.Client) -> None:  # noqa: F811
    body = {"model": MODEL, "prompt": "The", "max_tokens": 2}
    assert set(REFUSED) == {one.parameter for one in RESTRICTIONS}
    page = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
    known = http.get("/info").json()["supported_parameters"]
    for restriction in RESTRICTIONS:
        name = restriction.parameter
        answer = http.post("/v1/completions", json=body | REFUSED[name])
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, name)
        assert restriction.allowed in error["message"]
        assert f"| `{name}` | {restriction.allowed} |" in page
        assert name not in known or known[name]["restriction"] == restriction.allowed
    form = {"structured_outputs": {"regex": "yes|no"}}
    answer = http.post("/v1/completions", json=body | form)
    assert answer.status_code == 400 and "ENGINE=ctranslate2" in answer.json()["error"]["message"]
    assert known["temperature"]["restriction"] is None
    assert http.post("/generate", json={"prompt": "x", "temperature": 0, "seed": 1}).is_success


def test_short_texts_do_not_wait_for_long_ones(fast: ServerProcess, client: Client) -> None:  # noqa: F811
    """While a text of the greatest length is written, others begin and end."""
    overtaken = False
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=fast.url) as probe:
        for _ in range(20):  # the long one may end before a slow machine asks for another
            (held,) = fill(fast.url, 1, 190, threading.Event(), pool)
            while not held.done() and not overtaken:
                client.generate("Hello", max_new_tokens=1)
                overtaken = not held.done()
            held.result()
        assert probe.get("/info").json()["batching"] == "dynamic"
    assert overtaken


def test_hanging_up_and_being_late_free_the_slots(fast: ServerProcess) -> None:
    with httpx.Client(base_url=fast.url, timeout=60) as probe, ThreadPoolExecutor(48) as pool:
        stop = threading.Event()
        held = fill(fast.url, 47, 190, stop, pool)
        stop.set()
        assert {one.result() for one in held} <= {200, 503}
        end = time.monotonic() + 60
        while "vllm:num_requests_running{" in (text := probe.get("/metrics").text):
            lines = [line for line in text.splitlines() if "num_requests_running{" in line]
            if all(line.endswith(" 0.0") for line in lines) or time.monotonic() > end:
                break
        assert all(line.endswith(" 0.0") for line in lines)
        assert "vllm:generation_tokens_total" in text


def rows(*asked: tuple[int, dict[str, Any]]) -> list[Any]:
    """Sequences of so many prompt tokens and such settings."""
    job = Job(60)
    for tokens, settings in asked:
        job.add(GenerationSettings(**settings), [1] * tokens, 5)
    return job.sequences


def test_what_may_share_a_batch() -> None:
    first, same, warmer, longer, penalised, other = rows(
        (3, {}), (3 + RAGGED_TOKENS, {}), (3, {"temperature": 1}), (4 + RAGGED_TOKENS, {}),
        (3, {"repetition_penalty": 1.1}), (90, {"repetition_penalty": 1.1}),
    )  # fmt: skip
    assert alike([first], same) and alike([penalised], other)
    assert not any(alike([first], row) for row in (warmer, longer, penalised))
    assert not alike([first, same], rows((2, {}))[0])


def test_no_parameter_of_the_logits_is_passed_over() -> None:
    """A new one must be handed to the library, or refused, never ignored."""
    handed = sampling(rows((1, {}))[0])
    assert set(FORMS) <= {*handed, *(restriction.parameter for restriction in RESTRICTIONS)}


def test_a_job_ends_at_its_time_limit_and_at_the_end_of_the_engine(cache: Path) -> None:
    config = load_config(model_name=MODEL, engine="ctranslate2", engine_cache=str(cache), slots=2)
    engine, _, _ = fast_engine(config, "cpu")
    engine.start()
    late, long = Job(0.0), Job(60, ignore_end=True)
    for job in (late, long):
        job.add(GenerationSettings(), [5, 6], 400)
        engine.submit(job)
    with pytest.raises(TimeLimitError):
        list(late.updates())
    assert late.sequences[0].finish_reason == "timeout"
    engine.close()
    with pytest.raises(NotReadyError, match="shutting down"):
        list(long.updates())
    assert engine.unanswered == engine.running == 0 and not engine.alive


# --- conversion ---------------------------------------------------------------------------

CONVERT = """
import sys
from pathlib import Path
from serving.engine.fast.conversion import converted
print(converted("course-gpt-1m", "int8", Path(sys.argv[1])))
"""


def test_a_conversion_that_is_killed_leaves_nothing_half(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", CONVERT, str(tmp_path)], cwd=ROOT)
    end = time.monotonic() + 120
    while not list(tmp_path.glob("partial-*")):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
    process.wait()
    assert not [one for one in tmp_path.glob("course-*") if one.is_dir()]
    folder, weights = converted(MODEL, "int8", tmp_path)
    assert weights == fingerprint(locate(MODEL)) and weights[:16] in folder.name
    assert (folder / "model.bin").stat().st_size > 1_000_000
    assert {one for one in tmp_path.iterdir() if one.is_dir()} == {folder}
    before = (folder / "model.bin").stat().st_mtime_ns
    assert converted(MODEL, "int8", tmp_path)[0] == folder
    assert (folder / "model.bin").stat().st_mtime_ns == before


def test_what_it_cannot_begin_with_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def begin(device: str = "cpu", **changes: Any) -> str:
        settings = {"model_name": MODEL, "engine": "ctranslate2", "engine_cache": str(tmp_path)}
        with pytest.raises(ParameterError) as caught:
            fast_engine(load_config(**settings | changes), device)
        assert "\n" not in str(caught.value)
        return caught.value.parameter

    assert begin(dtype="bfloat16") == "dtype"
    assert begin(device="cuda:0") == "device"
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert begin(engine_cache=str(tmp_path / "file")) == "engine_cache"
    monkeypatch.setattr(conversion.importlib.util, "find_spec", lambda name: None)
    assert begin() == "engine"


def test_api_errors_reach_the_client(client: Client) -> None:  # noqa: F811
    with pytest.raises(APIError, match="seed"):
        client.generate("x", seed=3)


# --- the instruct model -------------------------------------------------------------------


@pytest.mark.soak  # loads SmolLM2 twice and converts it
def test_the_instruct_model_chats_and_writes_as_with_torch(smollm2: str, cache: Path) -> None:
    """A Llama, with a chat template and an end of its turn that is not the end of texts."""
    chat: dict[str, Any] = {
        "messages": [
            {"role": "system", "content": "Answer in one short sentence."},
            {"role": "user", "content": "What is the capital of France?"},
        ],
        "max_tokens": 40,
    }
    written = []
    for settings in ({"engine": "ctranslate2", "engine_cache": cache}, {"engine": "torch"}):
        common: dict[str, Any] = {"model": smollm2, "temperature": 0}
        with ServerProcess("instruct", model=smollm2, **settings) as served:
            ai = openai.OpenAI(base_url=f"{served.url}/v1", api_key="-", max_retries=0)
            assert httpx.get(f"{served.url}/info").json()["dtype"] == "float32"
            answer = ai.chat.completions.create(**common, **chat)
            pieces = ai.chat.completions.create(**common, **chat, stream=True)
            streamed = "".join(piece.choices[0].delta.content or "" for piece in pieces)
            text = ai.completions.create(**common, prompt="The sun is", max_tokens=8)
        choice = answer.choices[0]
        assert streamed == choice.message.content and choice.finish_reason == "stop"
        written.append((streamed, answer.usage, text.choices[0].text, text.usage))
    assert "Paris" in written[0][0] and "<|im_end|>" not in written[0][0]
    assert written[0] == written[1]
