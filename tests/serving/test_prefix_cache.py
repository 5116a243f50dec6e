"""What is kept of prompts: found again as it was, within its room, and changing no text."""

from __future__ import annotations

import random

import pytest
import torch

from helpers.models import load_model
from serving.engine.engine import Engine
from serving.engine.prefix_cache import BLOCK, PrefixCache
from tests.serving.by_hand import Loaded, job_of, work

BYTES = 2 * 2 * 3 * BLOCK * 4 * 4  # of a block in the tests without a model


def computed(ids: list[int], start: int, end: int) -> torch.Tensor:
    """Stands for keys and values: sums over all tokens so far, as attention has it."""
    sums = torch.tensor(ids, dtype=torch.float32).cumsum(0)[start:end]
    return sums.reshape(1, 1, 1, -1, 1).expand(2, 2, 3, -1, 4)


def store(cache: PrefixCache, ids: list[int]) -> None:
    cache.store(ids, lambda start, end: computed(ids, start, end))


def alike(chance: random.Random) -> list[int]:
    """A prompt that begins as some others do."""
    stems = [[n] * 40 + [9] * 30 for n in range(3)] + [[], [0] * 70]
    stem = chance.choice(stems)
    return stem[: chance.randint(0, 70)] + [
        chance.randint(0, 2) for _ in range(chance.randint(1, 60))
    ]


@pytest.mark.parametrize("blocks", [0, 1, 5, 12, 1000])
def test_what_is_read_is_what_was_computed_within_the_room(blocks: int) -> None:
    chance = random.Random(blocks)
    cache = PrefixCache(blocks * BYTES + BYTES // 2)
    found = 0
    for _ in range(400):
        ids = alike(chance)
        known = cache.known(ids)
        assert known % BLOCK == 0 and known < len(ids)
        if len(cache):
            wanted = chance.randint(0, known)
            torch.testing.assert_close(cache.read(ids, wanted), computed(ids, 0, wanted))
        found += known
        store(cache, ids)
        assert cache.used_bytes == len(cache) * BYTES <= cache.capacity_bytes
        whole = len(ids) // BLOCK * BLOCK
        assert cache.known([*ids, 1]) == min(whole, blocks * BLOCK)
        numbers = {0} | {block.number for block in cache._blocks.values()}
        assert {key[0] for key in cache._blocks} <= numbers, "no block without the one before"
    assert (found > 0) == (blocks > 0)
    assert (cache.stats.evicted_blocks > 0) == (0 < blocks < 1000)


def test_the_least_recently_used_goes_first() -> None:
    cache = PrefixCache(4 * BYTES)
    one, two, three = ([n] * (2 * BLOCK) for n in (1, 2, 3))
    store(cache, one)
    store(cache, two)
    cache.read([*one, 0], BLOCK)  # only its beginning: its second block is the oldest now
    store(cache, three[:BLOCK])
    assert [cache.known([*ids, 0]) for ids in (one, two, three)] == [16, 32, 16]
    store(cache, three)
    assert [cache.known([*ids, 0]) for ids in (one, two, three)] == [16, 16, 32]
    cache.clear()
    assert cache.known([*one, 0]) == 0 and cache.used_bytes == len(cache) == 0
    store(cache, one)
    assert cache.known([*one, 0]) == 32 == cache.read([*one, 0], 32).shape[3]
    assert cache.stats.evicted_blocks == 2


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load_model("course-gpt-1m", "cpu")


def run(loaded: Loaded, prompts: list[list[int]], order: list[int], cache: int) -> tuple:
    """The texts of the prompts, in their order, and the engine that wrote them."""
    engine = Engine(*loaded, slots=4, queue_length=99, prefill_chunk=32, prefix_cache_bytes=cache)
    jobs = {}
    for n in order:
        sampled = {"temperature": 0.9, "top_k": 20, "seed": n} if n % 3 == 0 else {}
        jobs[n] = job_of(prompts[n], room=1 + n % 7, ignore_end=True, **sampled)
        engine.submit(jobs[n])
    work(engine)
    return [jobs[n].sequences[0] for n in range(len(prompts))], engine


def test_texts_are_the_same_with_shared_beginnings_kept(loaded: Loaded) -> None:
    """Prompts that begin alike, in a random order, in batches, with room for a few of them."""
    chance = random.Random(5)
    stems = [[chance.randrange(8000) for _ in range(90)] for _ in range(3)]
    prompts = [
        chance.choice(stems)[: chance.choice([0, 20, 64, 90, 90, 90])]
        + [chance.randrange(8000) for _ in range(chance.choice([1, 2, 5, 16, 40]))]
        for _ in range(60)
    ]
    order = chance.sample(range(60), 60)
    plain, without = run(loaded, prompts, order, 0)
    block = 2 * BLOCK * 4 * loaded[0].config.n_embd * loaded[0].config.n_layer
    kept, engine = run(loaded, prompts, order, 14 * block)
    assert [row.ids for row in kept] == [row.ids for row in plain]
    stats = engine.prefixes.stats
    assert stats.cached_tokens == sum(row.cached_tokens for row in kept) > 500
    assert stats.prompt_tokens == sum(row.prompt_tokens for row in kept)
    assert stats.evicted_blocks > 20 and engine.prefixes.used_bytes <= 14 * block
    assert all(row.cached_tokens < row.prompt_tokens for row in kept)
    assert not any(row.cached_tokens for row in plain) and len(without.prefixes) == 0


def test_out_of_memory_gives_the_kept_prompts_up_first(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = list(range(40))
    (want,), _ = run(loaded, [prompt], [0], 0)
    decode, failures = Engine._prefill, iter([None, None, MemoryError("no room")])

    def failing(engine: Engine) -> None:
        decode(engine)
        if len(engine.prefixes) and (error := next(failures, None)):
            raise error

    monkeypatch.setattr(Engine, "_prefill", failing)
    rows, engine = run(loaded, [prompt] * 6, list(range(6)), 2**20)
    assert engine.slots == 4 and engine.prefixes.capacity_bytes == len(engine.prefixes) == 0
    assert rows[0].ids == want.ids and not any(row.error for row in rows)
    assert all(row.new_tokens == 1 + n for n, row in enumerate(rows))


def test_a_prompts_tokens_are_judged_though_they_are_kept(loaded: Loaded) -> None:
    engine = Engine(*loaded, prefix_cache_bytes=2**20)
    noted = []
    for _ in range(2):
        job = job_of(list(range(50)), room=2, logprobs=1, prompt_logprobs=True)
        engine.submit(job)
        work(engine)
        noted.append(job.sequences[0])
    assert noted[0].prompt_logprobs == noted[1].prompt_logprobs
    assert len(noted[1].prompt_logprobs) == 50 and noted[1].cached_tokens == 0
