"""The batch and its cache: rows come, grow and leave, and each computes what it would alone."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.cache_utils import DynamicCache

from helpers.settings import GenerationSettings
from serving.engine.batch import Batch, check_cache
from serving.engine.forward import forward_of
from serving.engine.jobs import Job, Sequence
from serving.engine.kv_cache import SPARE_COLUMNS, KVBuffer, empty_cache

CONTEXT = 64
CLOSE = {"atol": 2e-4, "rtol": 1e-4}


@pytest.fixture(scope="module")
def model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": 300, "n_layer": 2, "n_head": 4, "n_embd": 64, "n_positions": CONTEXT}
    model = GPT2LMHeadModel(GPT2Config(**sizes)).eval()
    for parameter in model.parameters():  # untrained weights are too small to tell tokens apart
        parameter.data.normal_(0, 0.2)
    return model


pytestmark = pytest.mark.usefixtures("inference")


def sequences(*prompts: list[int]) -> list[Sequence]:
    job = Job(60)
    for ids in prompts:
        job.add(GenerationSettings(temperature=0), ids, 9)
    return job.sequences


def text(chance: random.Random, length: int) -> list[int]:
    return [chance.randrange(300) for _ in range(length)]


def batch_of(model: GPT2LMHeadModel, *prompts: list[int]) -> Batch:
    return Batch(forward_of(model), sequences(*prompts), CONTEXT)


def read(batch: Batch, columns: int = 99) -> Tensor:
    """Feed all prompts; the logits after their last tokens."""
    while not batch.prefilled:
        logits = batch.prefill(columns)
    return logits


def check(batch: Batch, logits: Tensor, model: GPT2LMHeadModel) -> None:
    """Each row's logits are those of its text alone, read at once and without a cache."""
    assert logits.shape == (len(batch), 300)
    for row, mine in zip(batch.rows, logits, strict=True):
        right = model(input_ids=torch.tensor([row.ids])).logits[0, -1]
        torch.testing.assert_close(mine, right, **CLOSE)
    assert batch.width == max(len(row.ids) for row in batch.rows), "no column without a text"
    assert batch.padding == [batch.width - len(row.ids) for row in batch.rows]


@pytest.mark.parametrize("seed", range(6))
def test_rows_that_come_and_go_compute_what_they_would_alone(
    model: GPT2LMHeadModel, seed: int
) -> None:
    chance = random.Random(seed)
    decoding = batch_of(model)
    for turn in range(24):
        if turn % 3 == 0:
            lengths = [chance.choice([1, 2, 9, 30]) for _ in range(chance.randint(1, 4))]
            new = batch_of(model, *(text(chance, length) for length in lengths))
            check(new, read(new, chance.randint(1, 12)), model)
            decoding.join(new)
        for row in decoding.rows:
            row.ids.append(chance.randrange(300))
        check(decoding, decoding.decode(), model)
        before, most = list(decoding.rows), chance.choice([0, 2, 4, 8])
        kept = sorted(chance.sample(range(len(before)), min(most, len(before))))
        decoding.keep(kept)
        assert {id(row) for row in decoding.rows} == {id(before[i]) for i in kept}
        assert all(decoding.rows[i] is before[i] for i in kept if i < len(kept)), "others move"
        if not decoding.rows:
            assert (decoding.width, decoding.padding, len(decoding)) == (0, [], 0)
            read(new := batch_of(model, text(chance, 3)))
            decoding.join(new)


def test_a_row_that_leaves_while_prompts_are_read(model: GPT2LMHeadModel) -> None:
    """The columns that only it needed go with it, read and unread."""
    chance = random.Random(1)
    for fed in (1, 4, 15, 17):
        batch = batch_of(model, text(chance, 20), text(chance, 5), text(chance, 4))
        batch.prefill(fed)
        batch.keep([1, 2])
        assert batch.width == max(0, fed - 15) and not batch.prefilled
        while not batch.prefilled:
            assert len(batch.rows) == 2
            logits = batch.prefill(3)
        for row, mine in zip(batch.rows, logits, strict=True):
            right = model(input_ids=torch.tensor([row.ids])).logits[0, -1]
            torch.testing.assert_close(mine, right, **CLOSE)


def test_logits_of_every_column_of_a_prompt(model: GPT2LMHeadModel) -> None:
    ids = text(random.Random(2), 11)
    batch = batch_of(model, ids)
    found = torch.cat([batch.prefill(columns, all_logits=True)[0] for columns in (4, 5, 9)])
    torch.testing.assert_close(found, model(input_ids=torch.tensor([ids])).logits[0], **CLOSE)
    assert batch.prefilled and batch.width == 11


def test_an_ended_row_is_carried_along_past_the_context(model: GPT2LMHeadModel) -> None:
    """In a static batch: its token is fed again and again, and positions end with the context."""
    batch = batch_of(model, text(random.Random(3), CONTEXT), text(random.Random(4), 5))
    check(batch, read(batch), model)
    for _ in range(3):
        batch.rows[1].ids.append(7)
        logits = batch.decode()
    right = model(input_ids=torch.tensor([batch.rows[1].ids])).logits[0, -1]
    torch.testing.assert_close(logits[1], right, **CLOSE)


@pytest.mark.parametrize("known", [[7, 0, 3], [16, 16, 16], [1, 0, 0]])
def test_what_is_known_of_prompts_is_not_read_again(
    model: GPT2LMHeadModel, known: list[int]
) -> None:
    """Keys and values are those that transformers keeps; rows go on from there."""
    chance = random.Random(5)
    prompts = [text(chance, count + 9 - 2 * n) for n, count in enumerate(known)]
    unread = max(len(ids) - count for ids, count in zip(prompts, known, strict=True))
    first, second = batch_of(model, *prompts), batch_of(model, *prompts)
    read(first, 4)
    prefixes = []
    for n, ids in enumerate(prompts):
        count = max(0, len(ids) - unread)
        cache = model(input_ids=torch.tensor([ids]), use_cache=True).past_key_values
        pairs = [torch.stack((layer.keys[0], layer.values[0])) for layer in cache.layers]
        prefixes.append(first.columns(n, 0, count))
        torch.testing.assert_close(prefixes[-1], torch.stack(pairs)[:, :, :, :count], **CLOSE)
        middle = first.columns(n, 1, 3)
        torch.testing.assert_close(middle, torch.stack(pairs)[:, :, :, 1:3], **CLOSE)
    second.restore(prefixes)
    assert second.width == max(map(len, prompts)) - unread
    check(second, read(second, 4), model)
    first.join(second)
    for row in first.rows:
        row.ids.append(chance.randrange(300))
    check(first, first.decode(), model)


@pytest.mark.parametrize("fails", [0, 1])
def test_a_pass_that_fails_leaves_the_batch_as_it_was(model: GPT2LMHeadModel, fails: int) -> None:
    """Some layers have added their columns by then."""

    def fail(*_: object) -> None:
        raise MemoryError("no room")

    batch = batch_of(model, text(random.Random(6), 9), text(random.Random(7), 4))
    batch.prefill(3)
    for _ in range(2):
        hook = model.transformer.h[fails].mlp.c_fc.register_forward_pre_hook(fail)
        with pytest.raises(MemoryError):
            batch.decode() if batch.prefilled else batch.prefill(4)
        hook.remove()
        logits = batch.decode() if batch.prefilled else read(batch, 4)
        check(batch, logits, model)
        for row in batch.rows:
            row.ids.append(8)


def test_joining_nothing_changes_nothing(model: GPT2LMHeadModel) -> None:
    batch = batch_of(model, text(random.Random(8), 5))
    read(batch)
    batch.join(batch_of(model))
    batch.keep([0])
    batch.rows[0].ids.append(1)
    check(batch, batch.decode(), model)


def test_a_cache_of_another_kind_is_refused() -> None:
    cache = empty_cache()
    cache.update(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4), 0)
    check_cache(cache)
    plain = DynamicCache()
    plain.update(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4), 0)
    with pytest.raises(TypeError, match="^cache of kind DynamicLayer: serving needs plain att"):
        check_cache(plain)


# --- the cache


def numbers(*shape: int) -> Tensor:
    return torch.rand(shape) + 1


@pytest.mark.parametrize("seed", range(8))
def test_a_buffer_holds_what_tensors_put_together_hold(seed: int) -> None:
    chance, right = random.Random(seed), numbers(2, 3, 4, 5)
    buffer = KVBuffer(right)
    for _ in range(120):
        rows, width = right.shape[0], right.shape[2]
        action = chance.choice(["append", "append", "widen", "add", "keep", "crop"])
        if action == "append":
            new = numbers(rows, 3, chance.choice([1, 1, 2, 90]), 5)
            buffer.append(new)
            right = torch.cat([right, new], dim=2)
        elif action == "widen":
            columns = chance.choice([0, 1, 7])
            buffer.widen(columns)
            right = pad(right, (0, 0, columns, 0))
        elif action == "add" and rows < 40:
            new = numbers(chance.choice([1, 2, 9]), 3, chance.randint(1, width), 5)
            buffer.add(new)
            right = torch.cat([right, pad(new, (0, 0, width - new.shape[2], 0))])
        elif action == "keep":
            count, columns = chance.randint(1, rows), chance.randint(1, min(width, 100))
            kept = sorted(chance.sample(range(rows), count))
            holes = [i for i in range(count) if i not in kept]
            movers = [i for i in kept if i >= count]
            order = [dict(zip(holes, movers, strict=True)).get(i, i) for i in range(count)]
            buffer.keep(holes, movers, count, columns)
            right = right[order, :, width - columns :]
        elif action == "crop":
            columns = chance.randint(1, width)
            buffer.crop(columns)
            right = right[:, :, :columns]
        assert torch.equal(buffer.used, right), action


def moves(buffer: KVBuffer, change: str, new: list[Tensor] | list[int]) -> list[int]:
    """At which of the changes everything was copied to another place."""
    found = []
    for n, one in enumerate(new):
        before = buffer.used.untyped_storage().data_ptr()
        getattr(buffer, change)(one)
        if buffer.used.untyped_storage().data_ptr() != before:
            found.append(n)
    return found


def test_everything_is_copied_only_where_the_capacity_is_used_up() -> None:
    buffer, column = KVBuffer(numbers(4, 1, 5, 2)), numbers(4, 1, 1, 2)
    assert moves(buffer, "append", [column] * (2 * SPARE_COLUMNS + 2)) == [0, SPARE_COLUMNS + 1]
    buffer = KVBuffer(numbers(4, 1, 5, 2))
    assert moves(buffer, "widen", [2]) == [0]
    assert moves(buffer, "append", [column] * (SPARE_COLUMNS + 1)) == [SPARE_COLUMNS]
    buffer.keep([], [], 4, 30)  # columns on the left are free again
    assert moves(buffer, "widen", [5, 5, 10**2]) == [2]
    buffer = KVBuffer(numbers(4, 1, 5, 2))
    assert moves(buffer, "add", [numbers(1, 1, 5, 2)] * 5) == [0, 4], "room for twice as many"
    assert moves(buffer, "append", [numbers(9, 1, SPARE_COLUMNS, 2)]) == []
    buffer = KVBuffer(numbers(4, 1, 5, 2))
    assert moves(buffer, "add", [numbers(9, 1, 5, 2), numbers(1, 1, 5, 2)]) == [0, 1]


def test_a_buffer_has_its_own_memory() -> None:
    first = numbers(1, 1, 2, 2)
    buffer, kept = KVBuffer(first), first.clone()
    first.zero_()
    assert torch.equal(buffer.used, kept)
    buffer.append(numbers(1, 1, 1, 2))
    buffer.add(numbers(1, 1, 1, 2))
    assert bool(buffer.used.untyped_storage().nbytes() >= 2 * (3 + SPARE_COLUMNS) * 2 * 4)
    everything = torch.empty(0).set_(buffer.used.untyped_storage())
    assert everything.isfinite().all(), "a weight of 0 does not hide NaN"


def test_layers_hand_out_what_they_hold() -> None:
    cache, keys, values = empty_cache(), numbers(2, 3, 4, 5), numbers(2, 3, 4, 5)
    assert all(map(torch.equal, cache.update(keys, values, 0), (keys, values)))
    more, others = numbers(2, 3, 1, 5), numbers(2, 3, 1, 5)
    found = cache.update(more, others, 0)
    assert torch.equal(found[0], torch.cat([keys, more], 2))
    assert torch.equal(found[1], torch.cat([values, others], 2))
    assert cache.get_seq_length() == 5 and cache.layers[0].keys is found[0]
