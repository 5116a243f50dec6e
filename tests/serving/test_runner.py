"""The runner on one thread: prompts are read, texts written, and their slots free again."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from helpers.settings import GenerationSettings
from serving.engine import runner as runner_module
from serving.engine.grammar import Grammars, Structure
from serving.engine.jobs import Sequence
from serving.engine.prefix_cache import PrefixCache
from serving.engine.runner import ModelRunner
from tests.serving.by_hand import Clock, Loaded, greedy, job_of, text

END, CONTEXT = 8191, 512


pytestmark = pytest.mark.usefixtures("inference")


def runner_of(loaded: Loaded, chunk: int = 48, kept: int = 0) -> ModelRunner:
    return ModelRunner(*loaded, CONTEXT, chunk, PrefixCache(kept))


def finish(runner: ModelRunner) -> list[Sequence]:
    """Read and write all; the rows in the order in which they left."""
    gone = []
    for _ in range(200):
        if not runner.rows:
            return gone
        if runner.prefilling.rows:
            runner.prefill()
        if runner.decoding.rows:
            runner.decode()
        gone += runner.release()
    pytest.fail("a row that never leaves")


def test_prompts_are_read_in_chunks_and_then_written(loaded: Loaded, clock: Clock) -> None:
    runner = runner_of(loaded, chunk=8)
    rows = job_of(text(20), text(5, 700), ignore_end=True).sequences
    assert runner.rows == [] and runner.cache_places == 0
    runner.admit(rows)
    assert runner.rows == rows and [row.started for row in rows] == [100.0, 100.0]
    assert runner.stats.prompt_tokens == 25 and runner.unread(rows[1]) == 5
    places = [(runner.prefill(), runner.cache_places) for _ in range(3)]
    assert (
        places == [(2 * 8, 2 * 8), (2 * 8, 2 * 16), (2 * 4, 2 * 20)]
        and runner.prefilling.rows == []
    )
    assert clock.columns == [8, 8, 4] and runner.stats.new_tokens == 2
    late = job_of(text(3), ignore_end=True).sequences
    runner.admit(late)
    assert runner.rows == [*rows, *late]
    assert len(finish(runner)) == 3 and runner.stats.new_tokens == 12
    for row in (*rows, *late):
        prompt = row.ids[: row.prompt_tokens]
        assert row.ids == greedy(loaded, prompt, 4) and row.finish_reason == "length"


def test_a_text_that_comes_back_goes_on_where_it_was(loaded: Loaded) -> None:
    """With the random numbers that it had not drawn yet; its prompt is counted once."""
    sampled = {"temperature": 1.0, "seed": 3, "ignore_end": True, "room": 12}
    runner = runner_of(loaded)
    whole, halved = (job_of(text(9), **sampled).sequences[0] for _ in range(2))
    runner.admit([whole])
    finish(runner)
    runner.admit([halved])
    runner.prefill()
    runner.decode()
    assert runner.clear() == [halved] and runner.rows == [] and halved.new_tokens == 2
    runner.admit([halved])
    assert finish(runner) == [halved]
    assert halved.ids == whole.ids and halved.new_tokens == 12
    assert runner.stats.prompt_tokens == 18 and runner.stats.new_tokens == 24
    other = job_of(text(9), **sampled | {"seed": 4}).sequences[0]
    runner.admit([other])
    finish(runner)
    assert other.ids != whole.ids


@pytest.mark.parametrize("end", [END, [7, END], None])
def test_a_text_ends_where_the_model_says(loaded: Loaded, end: Any) -> None:
    config = loaded[0].generation_config
    try:
        config.eos_token_id = end
        runner = runner_of(loaded)
        if end is None:
            loaded[0].generation_config = None
            assert runner_of(loaded).ends == {None}
    finally:
        config.eos_token_id, loaded[0].generation_config = END, config
    forced = {"logit_bias": {END: 100}}
    rows = [job_of(text(3), **forced, ignore_end=on).sequences[0] for on in (False, True)]
    runner.admit(rows)
    finish(runner)
    reasons = [row.finish_reason for row in rows]
    assert reasons == ["end_of_text" if end else "length", "length"]
    assert rows[1].new_tokens == 4


def test_a_stop_string_ends_a_text(loaded: Loaded) -> None:
    tokens = greedy(loaded, text(9), 4)[9:]
    word = loaded[1].decode(tokens[1:2])
    row = job_of(text(9), stop=(word,)).sequences[0]
    runner = runner_of(loaded)
    runner.admit([row])
    finish(runner)
    assert row.finish_reason == "stop" and row.text == loaded[1].decode(tokens[:1])


def test_what_is_kept_of_prompts_is_counted_and_not_read(loaded: Loaded, clock: Clock) -> None:
    runner = runner_of(loaded, kept=2**22)
    first = job_of(text(40)).sequences
    runner.admit(first)
    finish(runner)
    assert len(runner.prefixes) == 2, "whole blocks of the prompt; of what was written none"
    clock.columns.clear()
    again = job_of(text(40), text(33), text(4, 700), ignore_end=True).sequences
    assert [runner.unread(row) for row in again] == [8, 1, 4]
    runner.admit(again)
    assert [row.cached_tokens for row in again] == [32, 25, 0]
    stats = runner.prefixes.stats
    assert (stats.prompt_tokens, stats.cached_tokens) == (40 + 77, 57)
    finish(runner)
    assert clock.columns == [8, 1, 1, 1]
    for row in again:
        assert row.ids == greedy(loaded, row.ids[: row.prompt_tokens], 4)
    judged = job_of(text(40), prompt_logprobs=True).sequences[0]
    assert runner.unread(judged) == 40, "every token of it has to be judged"
    runner.clear()
    assert len(runner.prefixes) == 0


def test_log_probabilities_are_noted_where_they_are_wanted(loaded: Loaded) -> None:
    runner = runner_of(loaded, chunk=8)
    for wanted, whole in ((2, True), (0, False), (None, False)):
        (row,) = job_of(text(20), logprobs=wanted, prompt_logprobs=whole).sequences
        runner.admit([row])
        finish(runner)
        right = loaded[0](input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
        noted = row.prompt_logprobs + row.logprobs
        expected = (row.ids if whole else row.ids[20:]) if wanted is not None else []
        assert [entry.token_id for entry in noted] == expected and row.new_tokens == 4
        for place, entry in enumerate(noted, len(row.ids) - len(noted)):
            assert len(entry.top) == (wanted if place else 0)
            if place:
                wants = float(right[place - 1, row.ids[place]])
                assert entry.logprob == pytest.approx(wants, abs=1e-3)


def test_a_text_that_fails_fails_alone(loaded: Loaded, caplog: pytest.LogCaptureFixture) -> None:
    runner = runner_of(loaded)
    bad, good = job_of(text(3), text(5), ignore_end=True).sequences
    runner.admit([bad, good])
    bad.ending = None
    with caplog.at_level(logging.ERROR):
        runner.prefill()
    assert (bad.finish_reason, bad.error) == ("error", "writing this text failed: AssertionError")
    assert [record.message for record in caplog.records] == ["a text failed; the others go on"]
    assert caplog.records[0].exc_info and runner.stats.new_tokens == 1
    assert finish(runner) == [bad, good] and good.ids == greedy(loaded, text(5), 4)


def test_rows_that_ended_are_carried_along_until_all_leave(loaded: Loaded) -> None:
    """In a static batch: nothing more is written for them."""
    runner = runner_of(loaded)
    short, long = job_of(text(3), room=1).sequences[0], job_of(text(5), room=3).sequences[0]
    runner.admit([short, long])
    runner.prefill()
    for _ in range(2):
        assert runner.release(whole=True) == [] and len(runner.decoding) == 2
        runner.decode()
    assert short.new_tokens == 1 and runner.stats.new_tokens == 4
    assert runner.release(whole=True) == [short, long] and runner.rows == []
    one, other = (job_of(text(3), room=room, ignore_end=True).sequences[0] for room in (1, 2))
    runner.admit([one, other])
    runner.prefill()
    assert runner.release() == [one] and runner.clear() == [other], "in any other batch it leaves"
    runner.admit([dropped := job_of(text(3)).sequences[0]])
    dropped.end("cancelled")
    assert runner.release() == [dropped] and runner.rows == []


def test_a_form_is_kept_whatever_else_is_asked_for(loaded: Loaded) -> None:
    runner = runner_of(loaded)
    grammars = Grammars(loaded[1], 8192, runner.ends)
    guide = grammars.guide(Structure("choice", ["red", "green"], "form"))
    forbidden = {token: -100 for token in range(99)}
    for more in ({}, {"no_repeat_ngram_size": 1}, {"temperature": 1.5}, {"logit_bias": forbidden}):
        (row,) = job_of(text(3), room=20, guide=guide, **more).sequences
        (plain,) = job_of(text(5)).sequences
        runner.admit([plain, row])
        finish(runner)
        assert row.text in ("red", "green") and row.finish_reason == "end_of_text"
        assert plain.ids == greedy(loaded, text(5), 4), "the row beside it stays as it is"


def test_what_a_form_allows_comes_before_what_is_ruled_out(loaded: Loaded) -> None:
    grammars = Grammars(loaded[1], 8192, {END})
    (row,) = job_of([1, 2], guide=grammars.guide(Structure("choice", ["a"], "form"))).sequences
    allowed = [token for token, on in enumerate(row.guide.mask()) if on]
    scores = torch.zeros(1, 8192)
    row.settings = GenerationSettings(no_repeat_ngram_size=1, temperature=0)
    row.ids = [*allowed, allowed[0]]  # all were written before
    scores[0, allowed[0]] = 1.0
    assert runner_module._next(scores, [row]) == [allowed[0]]
    assert torch.equal(scores.sum(), torch.tensor(1.0)), "the model's own numbers stay"
    assert runner_module._next(torch.full((1, 8192), torch.nan), [row]) == [-1]
    row.end("timeout")
    scores[0, 5000] = 2.0
    assert runner_module._next(scores, [row]) == [5000], "an ended row has no form to keep"


def test_a_form_may_be_kept_with_any_token(loaded: Loaded) -> None:
    """With the first of the vocabulary, too, where another is more probable."""
    first = loaded[1].decode([0])
    guide = Grammars(loaded[1], 8192, {END}).guide(Structure("choice", [first, "a"], "form"))
    (row,) = job_of([1, 2], guide=guide, temperature=1.0).sequences
    (other,) = loaded[1]("a")["input_ids"]
    scores, row.generator = torch.zeros(1, 8192), torch.Generator().manual_seed(0)
    scores[0, other] = 0.5
    drawn = [runner_module._next(scores, [row])[0] for _ in range(40)]
    assert set(drawn) == {0, other} and drawn.count(0) > 5


def test_the_probe_reads_one_token(loaded: Loaded, clock: Clock) -> None:
    runner = runner_of(loaded)
    runner.probe(job_of(text(5)).sequences[0])
    assert clock.columns == [1] and runner.rows == []
