"""The engine against transformers: the same probabilities, the same tokens, in any company."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from helpers.models import load_model
from helpers.sampling import generate_arguments
from helpers.settings import GenerationSettings
from serving.config import Config
from serving.engine.engine import Engine
from serving.engine.jobs import (
    Job,
    NotReadyError,
    QueueFullError,
    Sequence,
    SequenceError,
    TimeLimitError,
)
from serving.engine.packed import PackedLinear, pack_linear_layers
from serving.service import Service
from system.errors import ParameterError

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]
WORDS = "the a model network learns data from and to language token memory fast because it".split()


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load_model("course-gpt-1m", "cpu")


@pytest.fixture(scope="module")
def served() -> Loaded:
    """As the server runs it: with packed layers."""
    model, tokenizer = load_model("course-gpt-1m", "cpu")
    pack_linear_layers(model)
    return model, tokenizer


def start(loaded: Loaded, **options: object) -> Engine:
    engine = Engine(*loaded, **options)  # type: ignore[arg-type]
    engine.start()
    return engine


@pytest.fixture(scope="module")
def engine(loaded: Loaded):
    engine = start(loaded, slots=12, queue_length=400, prefill_chunk=48)
    yield engine
    engine.close()


def make(
    loaded: Loaded, room: int, time_limit: float = 120, prompt: str = "The model", **parameters
) -> Job:
    options = {
        k: parameters.pop(k)
        for k in ("stream", "logprobs", "prompt_logprobs", "ignore_end")
        if k in parameters
    }
    settings = GenerationSettings(**parameters)
    job = Job(time_limit, **options)
    job.add(settings, list(loaded[1](prompt)["input_ids"]), room)
    return job


def finish(job: Job) -> None:
    for _ in job.updates():
        pass


def random_request(loaded: Loaded, number: int) -> dict[str, object]:
    chance = random.Random(number)
    prompt = " ".join(chance.choices(WORDS, k=chance.choice([1, 2, 4, 8, 16, 60])))
    request: dict[str, object] = {"prompt": prompt, "room": chance.randint(1, 32), "seed": number}
    request["temperature"] = chance.choice([0, 0, 0.5, 0.8, 1.2])
    request["top_k"] = chance.choice([0, 0, 5, 50])
    request["top_p"] = chance.choice([1.0, 0.9, 0.5])
    request["repetition_penalty"] = chance.choice([1.0, 1.0, 1.2])
    request["no_repeat_ngram_size"] = chance.choice([0, 0, 0, 2])
    request["logit_bias"] = {t: chance.choice([-100, 5]) for t in chance.sample(range(8192), 3)}
    if chance.random() < 0.3:
        request["stop"] = tuple(chance.sample([" the", "e", ".", " of", "ing", "\n"], k=2))
    return request


@pytest.mark.parametrize(
    ("slots", "capability", "packed"), [(1, "AVX2", False), (1, "AVX512", True), (2, "AVX2", True)]
)
def test_the_service_packs_weights_where_that_pays(
    monkeypatch: pytest.MonkeyPatch, slots: int, capability: str, packed: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    service = Service(Config(model_name="course-gpt-1m", device="cpu", slots=slots))
    ready, failed = threading.Event(), list[Exception]()
    service.load(ready.set, failed.append)
    assert ready.wait(60) and not failed
    kinds = {type(layer) for layer in service.engine.model.modules()}
    service.engine.close()
    assert (PackedLinear in kinds) == packed


@pytest.mark.slow
def test_200_staggered_ragged_requests_equal_the_same_alone(loaded: Loaded, served: Loaded) -> None:
    """Greedy ones equal plain generate's, seeded ones the same request alone, token for token."""
    chance = random.Random(0)
    requests = [random_request(loaded, n) for n in range(220)]
    jobs = [make(loaded, **r) for r in requests]  # type: ignore[arg-type]
    cancelled = set(chance.sample(range(len(jobs)), 20))
    crowd = start(served, slots=12, queue_length=400, prefill_chunk=48)
    for n, job in enumerate(jobs):
        if n in cancelled:
            threading.Timer(chance.uniform(0, 0.03), job.cancel).start()
        crowd.submit(job)
        time.sleep(chance.choice([0, 0, 0.002, 0.02]))
    for job in jobs:
        finish(job)
    rows_a_step = crowd.stats.row_steps / crowd.stats.steps
    assert rows_a_step > 4
    assert (crowd.running, crowd.waiting, crowd.unanswered) == (0, 0, 0)
    crowd.close()

    alone = start(served, slots=1)
    for request, job in zip(requests, jobs, strict=True):
        got = job.sequences[0]
        if got.settings.greedy and got.finish_reason != "cancelled":
            assert got.ids == greedy(loaded, got)[: len(got.ids)], request
            continue
        again = make(loaded, **request)  # type: ignore[arg-type]
        alone.submit(again)
        finish(again)
        want = again.sequences[0]
        if got.finish_reason == "cancelled":
            assert want.ids[: len(got.ids)] == got.ids
            continue
        assert got.ids == want.ids, request
        assert (got.text, got.finish_reason) == (want.text, want.finish_reason)
    alone.close()
    reasons = {job.sequences[0].finish_reason for job in jobs}
    assert {"length", "stop", "cancelled"} <= reasons


def greedy(loaded: Loaded, row: Sequence) -> list[int]:
    """The row's prompt and what transformers' generate writes after it."""
    ids = torch.tensor([row.ids[: row.prompt_tokens]])
    arguments = generate_arguments(row.settings) | {"num_return_sequences": 1}
    arguments |= {"attention_mask": torch.ones_like(ids), "max_new_tokens": row.max_new_tokens}
    return loaded[0].generate(ids, **arguments)[0].tolist()


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(
            vocab_size=8192,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
        ),
        MistralConfig(
            vocab_size=8192,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            sliding_window=16,
        ),
    ],
    ids=["llama: grouped queries, rotary positions", "mistral: sliding window"],
)
def test_other_architectures_equal_generate(loaded: Loaded, config) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():  # untrained weights are too small to tell tokens apart
        parameter.data.mul_(3)
    model.generation_config.eos_token_id = None
    other = (model, loaded[1])
    engine = start(other, slots=5, prefill_chunk=16, prefix_cache_bytes=2**18)
    chance = random.Random(3)
    jobs = []
    system = " ".join(chance.choices(WORDS, k=50))
    for n in range(12):
        prompt = " ".join(chance.choices(WORDS, k=chance.choice([1, 5, 12, 40])))
        prompt = f"{system} {prompt}" if n % 2 else prompt
        jobs.append(make(loaded, room=chance.randint(3, 30), prompt=prompt, temperature=0, seed=n))
        engine.submit(jobs[-1])
        time.sleep(0.01)
    for job in jobs:
        finish(job)
        row = job.sequences[0]
        assert row.ids == greedy(other, row)
    assert engine.prefixes.stats.cached_tokens > 100
    engine.close()


def test_a_short_request_overtakes_a_long_one(loaded: Loaded, engine: Engine) -> None:
    long = make(loaded, room=300, temperature=0, ignore_end=True)
    short = make(loaded, room=3, temperature=0, ignore_end=True)
    engine.submit(long)
    engine.submit(short)
    finish(short)
    assert long.sequences[0].new_tokens < 200
    long.cancel()
    finish(long)
    assert long.sequences[0].finish_reason == "cancelled"


def test_streamed_pieces_are_the_text(loaded: Loaded, engine: Engine) -> None:
    job = make(loaded, room=20, seed=3, stream=True, num_return_sequences=3, ignore_end=True)
    engine.submit(job)
    texts = ["", "", ""]
    for update in job.updates():
        if update:
            texts[update.index] += update.text
    assert texts == [row.text for row in job.sequences]
    second = make(loaded, room=20, seed=4, ignore_end=True)
    engine.submit(second)
    finish(second)
    assert second.sequences[0].text == texts[1], "text n of a seed is that of seed + n"


def test_times_of_a_text(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that counts passes through the model: the queue counts, the first token's
    speed does not."""
    passes = [0.0]
    engine = start(loaded, slots=1)
    hook = loaded[0].lm_head.register_forward_hook(lambda *_: passes.__setitem__(0, passes[0] + 1))
    monkeypatch.setattr(time, "perf_counter", lambda: passes[0])
    jobs = [make(loaded, room=room, ignore_end=True, seed=room) for room in (9, 5, 1)]
    for job in jobs:
        engine.submit(job)
    for job in jobs:
        finish(job)
    engine.close()
    hook.remove()
    first, second, third = (job.sequences[0] for job in jobs)
    assert [row.new_tokens for row in (first, second, third)] == [9, 5, 1]
    assert [row.ttft for row in (first, second, third)] == [1, 9 + 1, 9 + 5 + 1]
    assert [row.tokens_per_second for row in (first, second, third)] == [1, 1, 0]


def test_token_ids_of_another_model_are_refused(loaded: Loaded, engine: Engine) -> None:
    with pytest.raises(ParameterError, match="logit_bias=8192 .*from 0 to 8191"):
        engine.submit(make(loaded, room=1, logit_bias={8192: 1}))
    for bias, seen in ((100, True), (-100, False)):
        job = make(loaded, room=8, logit_bias={300: bias}, seed=1, ignore_end=True)
        engine.submit(job)
        finish(job)
        assert (300 in job.sequences[0].ids[job.sequences[0].prompt_tokens :]) == seen


def test_log_probabilities_are_the_models(loaded: Loaded, engine: Engine) -> None:
    prompt = "the model learns " * 20  # more than one prefill chunk
    job = make(loaded, room=5, prompt=prompt, seed=1, logprobs=3, prompt_logprobs=True)
    engine.submit(job)
    finish(job)
    row = job.sequences[0]
    with torch.inference_mode():
        logits = loaded[0](torch.tensor([row.ids])).logits[0].log_softmax(-1)
    noted = row.prompt_logprobs + row.logprobs
    assert [entry.token_id for entry in noted] == row.ids
    assert noted[0].logprob is None
    for position, entry in enumerate(noted[1:]):
        assert entry.logprob == pytest.approx(float(logits[position, entry.token_id]), abs=1e-3)
        assert len(entry.top) == 3
        assert entry.top[0][1] == pytest.approx(float(logits[position].max()), abs=1e-3)


def test_a_failing_request_fails_alone(loaded: Loaded) -> None:
    """A model that gives no numbers after one certain token, as broken weights do."""
    model, tokenizer = load_model("course-gpt-1m", "cpu")
    poison = int(tokenizer(" zero")["input_ids"][0])
    embedding = model.get_input_embeddings().weight
    with torch.no_grad():
        output = torch.nn.Linear(embedding.shape[1], embedding.shape[0], bias=False)
        output.weight.copy_(embedding)
        model.config.tie_word_embeddings = False
        model.set_output_embeddings(output)
        embedding[poison] = torch.nan
    engine = start((model, tokenizer), slots=4)
    good = [make(loaded, room=20, seed=n, ignore_end=True) for n in range(3)]
    bad = make(loaded, room=20, prompt="Hello zero", temperature=0)
    for job in (good[0], bad, *good[1:]):
        engine.submit(job)
    with pytest.raises(SequenceError, match="no numbers"):
        finish(bad)
    for job in good:
        finish(job)
        assert job.sequences[0].new_tokens == 20
    engine.close()


def test_the_queue_is_bounded_and_time_is_limited(loaded: Loaded) -> None:
    engine = start(loaded, slots=1, queue_length=2)
    jobs = [make(loaded, room=250, ignore_end=True, seed=n) for n in range(3)]
    for job in jobs:
        engine.submit(job)
    with pytest.raises(QueueFullError):
        engine.submit(make(loaded, room=1))
    late = jobs[1]
    late.deadline = time.perf_counter()  # while it waits
    with pytest.raises(TimeLimitError):
        finish(late)
    engine.submit(make(loaded, room=1))  # its place is free again
    jobs[0].deadline = time.perf_counter()  # while it runs
    with pytest.raises(TimeLimitError):
        finish(jobs[0])
    engine.close()
    with pytest.raises(NotReadyError):
        finish(jobs[2])
    with pytest.raises(NotReadyError):
        engine.submit(make(loaded, room=1))


def test_static_batching_answers_at_the_end_of_the_longest(loaded: Loaded) -> None:
    engine = start(loaded, slots=4, batching="static")
    first = [make(loaded, room=n, temperature=0, ignore_end=True) for n in (2, 5, 60)]
    longest = first[2].sequences[0]
    prompt = len(longest.ids)
    for job in first:
        engine.submit(job)
    while len(longest.ids) < prompt + 2:  # until the batch is complete and decodes
        time.sleep(0.001)
    late = make(loaded, room=2, temperature=0, ignore_end=True)
    engine.submit(late)
    for job in (*first, late):
        finish(job)
    ends = [job.sequences[0].finished for job in first]
    assert max(ends) - min(ends) < 0.01
    assert late.sequences[0].first_token > max(ends)
    want = first[2].sequences[0]
    assert want.ids == greedy(loaded, want)[: len(want.ids)]
    engine.close()


OUT_OF_MEMORY = """
import os
import resource
import psutil, torch
from helpers.models import load_model
from serving.config import Config
from serving.engine.engine import Engine
from serving.engine.jobs import Job
from helpers.settings import GenerationSettings

torch.set_num_threads(1)
loaded = load_model("course-gpt-1m", "cpu")
engine = Engine(*loaded, slots=64, queue_length=64, prefill_chunk=20_000)
engine.start()

def job(seed):
    found = Job(600, ignore_end=True)
    ids = loaded[1]("The model " * 100)["input_ids"]
    found.add(GenerationSettings(seed=seed), list(ids), 20)
    engine.submit(found)
    return found

def finish(job):
    for _ in job.updates():
        pass
    return job.sequences[0]

alone = finish(job(7))
for spare in (60_000_000, 30_000_000, 15_000_000):  # what is too little depends on the machine
    limit = psutil.Process().memory_info().vms + spare
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    texts = [finish(j) for j in [job(n) for n in range(64)]]
    if engine.slots < 64:
        break
assert engine.alive and engine.slots < 64, engine.slots
assert engine.stats.out_of_memory >= 1
assert all(text.new_tokens == 20 for text in texts)
assert texts[7].ids == alone.ids
os._exit(0)  # every claim holds; without memory the libraries' own clean-up may abort
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory the way Linux does")
def test_out_of_memory_means_fewer_slots_not_failures() -> None:
    command = [sys.executable, "-c", OUT_OF_MEMORY]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "out of memory:" in ended.stderr and "slots from now on" in ended.stderr
