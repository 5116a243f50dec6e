"""TextGenerator against the shipped models: what it writes, counts, measures and refuses."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from helpers.generation import _batches
from helpers.generator import TextGenerator, load
from helpers.sampling import probabilities, processors
from helpers.settings import DEFAULT_NEW_TOKENS, GenerationSettings
from system.errors import (
    OutOfMemoryError,
    ParameterError,
    PromptTooLongError,
    is_out_of_memory,
    warn,
)

PROMPT = "Machine learning is"
END = 8191  # end-of-text, and padding
RAGGED = [PROMPT, "A", "The computer is a machine that can be used for many different things:"]
SAMPLED: list[dict[str, Any]] = [
    {},
    {"temperature": 1.0, "top_k": 0},
    {"temperature": 0.9, "top_p": 0.8, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
]


@pytest.fixture(scope="module")
def generator() -> TextGenerator:
    return load("course-gpt-1m", device="cpu")


@pytest.fixture(scope="module")
def larger() -> TextGenerator:
    return load("course-gpt-4m", device="cpu")


@contextmanager
def writing(generator: TextGenerator, ids: list[int]) -> Iterator[None]:
    """Make the model write exactly these tokens after the prompt, then end-of-text."""
    end = generator.tokenizer.eos_token_id

    class Dictate(LogitsProcessor):
        def __init__(self) -> None:
            self.width: int | None = None

        def __call__(self, past: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            self.width = past.shape[1] if self.width is None else self.width
            step = past.shape[1] - self.width
            forced = torch.full_like(scores, -math.inf)
            forced[:, ids[step] if step < len(ids) else end] = 0.0
            return forced

    original = generator.model.generate

    def generate(*args: Any, **kwargs: Any) -> Any:
        given = kwargs.pop("logits_processor", [])
        return original(*args, logits_processor=LogitsProcessorList([*given, Dictate()]), **kwargs)

    generator.model.generate = generate  # type: ignore[method-assign]
    try:
        yield
    finally:
        del generator.model.generate


def by_hand(
    generator: TextGenerator, prompt: str, n: int, seed: int, **parameters: Any
) -> list[int]:
    """The autoregressive loop without a cache, a pipeline or `generate`."""
    settings = GenerationSettings(**parameters)
    change = processors(settings)
    ids = torch.tensor([generator.encode(prompt)])
    width = ids.shape[1]
    torch.manual_seed(seed)
    for _ in range(n):
        with torch.inference_mode():
            logits = change(ids, generator.model(ids).logits[:, -1].float())
        if settings.greedy:
            token = logits.argmax(-1, keepdim=True)
        else:
            token = torch.multinomial(torch.softmax(logits, -1), 1)
        if int(token) == generator.tokenizer.eos_token_id:
            break
        ids = torch.cat([ids, token], dim=1)
    return ids[0, width:].tolist()


# --- what it writes


def test_greedy_is_the_argmax_loop(larger: TextGenerator) -> None:
    for prompt in RAGGED:
        result = larger.generate(prompt, temperature=0, max_new_tokens=25)
        assert result.new_ids[0] == by_hand(larger, prompt, 25, 0, temperature=0)


@pytest.mark.parametrize("parameters", SAMPLED, ids=repr)
def test_sampling_is_the_multinomial_loop(
    larger: TextGenerator, parameters: dict[str, Any]
) -> None:
    """Nothing of the pipeline's own defaults (temperature 0.7, …) gets in between."""
    result = larger.generate(PROMPT, seed=7, max_new_tokens=25, **parameters)
    assert result.new_ids[0] == by_hand(larger, PROMPT, 25, 7, **parameters)


def test_what_looks_like_a_special_token_is_text(generator: TextGenerator) -> None:
    """A user's `<|endoftext|>` ends nothing: alone, in a batch and streamed it is read alike."""
    prompt = "Write <|endoftext|> here:"
    ids = generator.encode(prompt)
    assert END not in ids and generator.decode(ids) == prompt
    with torch.inference_mode():
        likely = int(generator.model(torch.tensor([ids])).logits[0, -1].argmax())
    alone = generator.generate(prompt, temperature=0, max_new_tokens=4)
    assert alone.prompt_tokens == len(ids) and alone.new_ids[0][0] == likely
    together = generator.generate_batch([prompt, prompt], temperature=0, max_new_tokens=4)
    streamed = "".join(generator.stream(prompt, temperature=0, max_new_tokens=4))
    assert {alone.new_text, together[0].new_text, streamed} == {alone.new_text}


def test_seeds(generator: TextGenerator) -> None:
    def write(seed: int | None) -> list[int]:
        return generator.generate(PROMPT, seed=seed, max_new_tokens=20, temperature=1.0).new_ids[0]

    texts = [write(seed) for seed in (0, 1, 2, 2**63 - 1)]
    assert texts == [write(seed) for seed in (0, 1, 2, 2**63 - 1)]
    assert len({tuple(t) for t in texts}) == 4
    assert write(None) != write(None)


def test_a_seed_leaves_the_random_numbers_outside_alone(generator: TextGenerator) -> None:
    """Else every text without a seed would be the same after one with a seed."""
    after = []
    for seed in (3, 3):
        torch.seed()
        before = torch.get_rng_state()
        generator.generate(PROMPT, seed=seed, max_new_tokens=2)
        list(generator.stream(PROMPT, seed=seed, max_new_tokens=2))
        assert torch.equal(before, torch.get_rng_state())
        after.append(generator.generate(PROMPT, max_new_tokens=20, temperature=1.5).new_ids)
    assert after[0] != after[1]


def test_batch_equals_one_by_one(larger: TextGenerator) -> None:
    together = larger.generate_batch(RAGGED, temperature=0, max_new_tokens=20)
    assert len(together) == len(RAGGED)
    for prompt, found in zip(RAGGED, together, strict=True):
        alone = larger.generate(prompt, temperature=0, max_new_tokens=20)
        assert found.prompt == prompt
        assert found.prompt_tokens == alone.prompt_tokens == larger.count_tokens(prompt)
        assert found.new_ids == alone.new_ids
        assert found.new_texts == alone.new_texts
        assert found.finish_reasons == alone.finish_reasons


def random_parameters(chance: random.Random) -> dict[str, Any]:
    """Settings that leave nothing to chance when drawn: greedy, top-k 1 or a tiny top-p."""
    found: dict[str, Any] = chance.choice(
        [
            {"temperature": 0},
            {"temperature": chance.choice([0.2, 1.0, 2.0]), "top_k": 1, "seed": 5},
            {"temperature": 1.0, "top_k": chance.choice([0, 40]), "top_p": 1e-9},
        ]
    )
    if found["temperature"]:
        found["num_return_sequences"] = chance.choice([1, 2])
    found["repetition_penalty"] = chance.choice([1.0, 0.8, 1.3, 2.0])
    found["no_repeat_ngram_size"] = chance.choice([0, 1, 2, 3])
    found["logit_bias"] = {
        chance.choice([END, chance.randrange(400)]): chance.choice([-100, 3, 6])
        for _ in range(chance.choice([0, 3]))
    }
    found["stop"] = tuple(
        chance.sample([" the", "e", ".", " of", "ing", "\n"], k=chance.choice([0, 2]))
    )
    found |= chance.choice([{}, {"max_new_tokens": 9}, {"max_length": 24}])
    return found


@pytest.mark.slow
def test_padded_rows_equal_single_ones(generator: TextGenerator) -> None:
    """Whatever the parameters: padding is neither text nor room."""
    assert generator.tokenizer.pad_token_id == END == generator.tokenizer.eos_token_id
    chance = random.Random(6)
    words = "the a model network learns data from and to language token memory".split()
    for _ in range(24):
        parameters = random_parameters(chance)
        prompts = [" ".join(chance.choices(words, k=k)) for k in (1, 3, chance.randint(4, 18))]
        chance.shuffle(prompts)
        batch = generator.generate_batch(prompts, **parameters)
        for prompt, found in zip(prompts, batch, strict=True):
            alone = generator.generate(prompt, **parameters)
            for part in ("prompt", "prompt_tokens", "new_ids", "new_texts", "finish_reasons"):
                assert getattr(found, part) == getattr(alone, part), (part, prompt, parameters)


def test_the_reported_case_of_padding(generator: TextGenerator) -> None:
    """No token twice: with padding counted as text, end-of-text could never come."""
    prompts = ["A", "The computer is a machine that can be used for many things"]
    arguments: dict[str, Any] = {"no_repeat_ngram_size": 1, "temperature": 0}
    with writing(generator, generator.encode(" short")):
        together = generator.generate_batch(prompts, **arguments)
    assert [r.finish_reasons for r in together] == [("end_of_text",)] * 2


def test_prompts_too_different_for_one_batch(generator: TextGenerator) -> None:
    """Padded to 500 tokens, the short prompt's text would run past the context of 512."""
    long = generator.decode(generator.encode("word " * 600)[:500])
    together = generator.generate_batch(["A", long, "The"], temperature=0, logit_bias={END: -100})
    room = 512 - generator.count_tokens(long)
    assert [r.new_tokens for r in together] == [DEFAULT_NEW_TOKENS, room, DEFAULT_NEW_TOKENS]
    for prompt, found in zip(["A", long, "The"], together, strict=True):
        alone = generator.generate(prompt, temperature=0, logit_bias={END: -100})
        assert found.new_ids == alone.new_ids


def test_batches_fit_the_context() -> None:
    chance = random.Random(7)
    for _ in range(200):
        context = chance.choice([20, 100])
        lengths = [chance.randint(1, context - 1) for _ in range(chance.randint(1, 9))]
        wanted = [chance.randint(1, context - n) for n in lengths]
        batches = _batches(lengths, wanted, context)
        assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
        for batch in batches:
            assert batch == sorted(batch)
            assert max(lengths[i] for i in batch) + max(wanted[i] for i in batch) <= context
    assert _batches([3, 9, 5], [11, 11, 11], 20) == [[0, 1, 2]], "one batch where they fit"


def test_logit_bias(generator: TextGenerator) -> None:
    free = generator.generate(PROMPT, temperature=0, max_new_tokens=10)
    first = free.new_ids[0][0]
    other = (first + 1) % 8192
    banned = generator.generate(PROMPT, temperature=0, max_new_tokens=10, logit_bias={first: -100})
    assert first not in banned.new_ids[0]
    wanted = generator.generate(PROMPT, max_new_tokens=4, logit_bias={str(other): 100}, seed=0)
    assert wanted.new_ids[0] == [other] * 4
    calls = (generator.generate, generator.stream, generator.next_token_distributions)
    for call in calls:
        with pytest.raises(ParameterError, match="logit_bias=8192 .*from 0 to 8191"):
            call(PROMPT, logit_bias={8192: 1})


def test_empty_batch(generator: TextGenerator) -> None:
    with pytest.raises(ParameterError, match=r"^prompts=\[\] .*a list of at least one prompt$"):
        generator.generate_batch([])


def test_several_sequences(generator: TextGenerator) -> None:
    arguments: dict[str, Any] = {
        "num_return_sequences": 3,
        "max_new_tokens": 12,
        "temperature": 1.5,
    }
    result = generator.generate(PROMPT, seed=4, **arguments)
    assert len(result.new_texts) == len(result.new_ids) == len(result.finish_reasons) == 3
    assert len({tuple(ids) for ids in result.new_ids}) == 3
    assert result.texts == tuple(PROMPT + text for text in result.new_texts)
    assert result.text == result.texts[0] and result.new_text == result.new_texts[0]
    batch = generator.generate_batch(RAGGED, seed=4, **arguments)
    assert [len(r.new_ids) for r in batch] == [3, 3, 3]
    assert len({tuple(ids) for r in batch for ids in r.new_ids}) == 9


def test_text_is_the_decoded_ids(larger: TextGenerator) -> None:
    result = larger.generate(PROMPT, seed=1, max_new_tokens=30, temperature=1.2)
    assert result.new_text == larger.decode(result.new_ids[0])
    assert result.new_tokens == len(result.new_ids[0])
    assert larger.decode(larger.encode(PROMPT)) == PROMPT
    assert larger.count_tokens(PROMPT) == len(larger.encode(PROMPT)) == result.prompt_tokens


# --- where it ends


def test_lengths(generator: TextGenerator) -> None:
    prompt_tokens = generator.count_tokens(PROMPT)
    ids = generator.encode("one two three four five six seven eight nine ten " * 60)
    with writing(generator, ids):
        assert generator.generate(PROMPT, max_new_tokens=7).new_tokens == 7
        assert generator.generate(PROMPT, max_length=30).new_tokens == 30 - prompt_tokens
        assert generator.generate(PROMPT).new_tokens == DEFAULT_NEW_TOKENS
        full = generator.generate(PROMPT, max_length=generator.context)
        assert full.finish_reasons == ("length",)
        written = min(len(ids), generator.context - prompt_tokens)
        assert full.new_ids[0] == ids[:written]


def test_end_of_text(generator: TextGenerator) -> None:
    ids = generator.encode(" a short answer")
    with writing(generator, ids):
        result = generator.generate(PROMPT, max_new_tokens=30)
        stream = generator.stream(PROMPT, max_new_tokens=30)
        text = "".join(stream)
    assert result.finish_reasons == ("end_of_text",)
    assert result.new_ids[0] == ids and result.new_text == " a short answer" == text
    assert stream.finish_reason == "end_of_text" and stream.new_tokens == len(ids)


def test_end_of_text_at_once(generator: TextGenerator) -> None:
    with writing(generator, []):
        result = generator.generate(PROMPT)
        stream = generator.stream(PROMPT)
        assert list(stream) == []
    assert result.new_text == "" and result.new_tokens == 0 and result.text == PROMPT
    assert result.finish_reasons == ("end_of_text",) and stream.finish_reason == "end_of_text"
    assert 0 < result.ttft <= result.seconds and math.isnan(result.tokens_per_second)


@pytest.mark.parametrize("stop", ["answer", "rt ans", "hort", " ", ".", ("zzz", "short", "a s")])
def test_stop_strings(generator: TextGenerator, stop: Any) -> None:
    text = " is a short answer. And more of it follows here."
    first = min(i for s in ([stop] if isinstance(stop, str) else stop) if (i := text.find(s)) >= 0)
    ids = generator.encode(text)
    with writing(generator, ids):
        result = generator.generate(PROMPT, stop=stop)
        stream = generator.stream(PROMPT, stop=stop)
        pieces = list(stream)
        batch = generator.generate_batch([PROMPT, "The"], stop=stop)
    assert result.new_text == "".join(pieces) == text[:first]
    assert result.finish_reasons == ("stop",) and stream.finish_reason == "stop"
    assert result.new_tokens == stream.new_tokens < len(ids)
    assert result.new_ids[0] == ids[: result.new_tokens]
    assert [r.new_text for r in batch] == [text[:first]] * 2


def test_stop_string_in_the_prompt_does_not_count(generator: TextGenerator) -> None:
    with writing(generator, generator.encode(" and on it goes")):
        result = generator.generate("stop here", stop="stop here")
    assert result.new_text == " and on it goes" and result.finish_reasons == ("end_of_text",)


def test_rows_of_a_batch_end_on_their_own(larger: TextGenerator) -> None:
    """One row meets its stop string early, another runs to the full length."""
    free = larger.generate_batch(RAGGED, temperature=0, max_new_tokens=20)
    texts = [r.new_text for r in free]
    candidates = [t[i : i + 3] for t in texts for i in range(len(t) - 3)]
    some = [s for s in candidates if 0 < sum(s in t for t in texts) < len(texts)]
    assert some, "the greedy texts are all alike"
    stop = some[0]
    for result, text in zip(
        larger.generate_batch(RAGGED, temperature=0, max_new_tokens=20, stop=stop),
        texts,
        strict=True,
    ):
        assert result.new_text == text.split(stop)[0]
        assert (result.finish_reasons == ("stop",)) == (stop in text)


# --- streaming


@pytest.mark.parametrize("parameters", [*SAMPLED, {"temperature": 0}], ids=repr)
def test_stream_is_generate(larger: TextGenerator, parameters: dict[str, Any]) -> None:
    arguments = {"seed": 11, "max_new_tokens": 40, **parameters}
    result = larger.generate(PROMPT, **arguments)
    stream = larger.stream(PROMPT, **arguments)
    pieces = list(stream)
    assert "".join(pieces) == result.new_text
    assert all(pieces) and len(pieces) > 10
    assert stream.new_tokens == result.new_tokens
    assert stream.finish_reason == result.finish_reasons[0]
    assert stream.prompt == PROMPT
    assert 0 < stream.ttft < 10 and stream.tokens_per_second > 0


def test_stream_never_cuts_a_character(generator: TextGenerator) -> None:
    text = " naïve 😀👩‍👩‍👧 日本語 𝔘 — ✓ é" * 4
    ids = generator.encode(text)
    assert len(ids) > len(text), "characters of several tokens are needed here"
    with writing(generator, ids):
        pieces = list(generator.stream(PROMPT, max_new_tokens=len(ids)))
        assert generator.generate(PROMPT, max_new_tokens=len(ids)).new_text == text
    assert "".join(pieces) == text
    assert not any("�" in piece for piece in pieces)


@pytest.mark.parametrize("length", [None, 0], ids=["end of text", "length"])
def test_stream_gives_the_held_piece_after_all(
    generator: TextGenerator, length: int | None
) -> None:
    """The text ends with what could have been the beginning of a stop string."""
    text = " is so far and no"
    ids = generator.encode(text)
    room = {"max_new_tokens": len(ids)} if length == 0 else {}
    with writing(generator, ids):
        stream = generator.stream(PROMPT, stop="no further", **room)
        assert "".join(stream) == text
        assert generator.generate(PROMPT, stop="no further", **room).new_text == text
    assert stream.finish_reason == ("length" if room else "end_of_text")
    assert stream.new_tokens == len(ids)


def test_stream_comes_piece_by_piece(larger: TextGenerator) -> None:
    """The first piece is there long before the last one."""
    stream = larger.stream(PROMPT, max_new_tokens=300, temperature=1.5, seed=0)
    start = time.perf_counter()
    arrivals = [time.perf_counter() - start for _ in stream]
    assert arrivals[0] < 0.5 * arrivals[-1]


def test_closing_a_stream_ends_the_work(generator: TextGenerator) -> None:
    ids = generator.encode("word " * 480)[:480]
    with writing(generator, ids):
        stream = generator.stream(PROMPT, max_new_tokens=480)
        for _ in stream:
            break
    assert not stream._thread.is_alive()
    assert stream.new_tokens < 480
    assert stream.finish_reason == "closed"
    stream.close()
    assert generator.generate(PROMPT, max_new_tokens=1).new_tokens <= 1, "the lock must be free"


def test_stream_refuses_at_once(generator: TextGenerator) -> None:
    for wrong in ({"num_return_sequences": 2}, {"temperature": 9}, {"max_length": 600}):
        with pytest.raises(ParameterError) as caught:
            generator.stream(PROMPT, **wrong)
        assert [caught.value.parameter] == list(wrong)
    with pytest.raises(ParameterError, match="=2 is not allowed: .* must be 1 when streaming$"):
        generator.stream(PROMPT, num_return_sequences=2)


# --- prompts that are too long


def test_prompt_past_the_context(generator: TextGenerator) -> None:
    prompt = "word " * 600
    for call in (
        generator.generate,
        generator.stream,
        lambda p: generator.generate_batch([p, "a"]),
    ):
        with pytest.raises(PromptTooLongError, match="context of 512 tokens.*truncate=True"):
            call(prompt)
    with pytest.raises(PromptTooLongError):
        generator.next_token_probabilities(prompt)


def test_prompt_that_leaves_too_little_room(generator: TextGenerator) -> None:
    prompt = generator.decode(generator.encode("word " * 600)[:500])
    room = 512 - generator.count_tokens(prompt)
    with pytest.raises(ParameterError, match=f"max_new_tokens=40 .*from 1 to {room}"):
        generator.generate(prompt, max_new_tokens=40)
    assert generator.generate(prompt, max_new_tokens=room, temperature=0).prompt == prompt


@pytest.mark.parametrize(
    "text", ["word and another ", "tokenization", "naïve 😀日本語 ", "a\n \n", "0123456789"]
)
@pytest.mark.parametrize("lengths", [{}, {"max_new_tokens": 20}, {"max_length": 64}], ids=repr)
def test_truncation(generator: TextGenerator, text: str, lengths: dict[str, int]) -> None:
    prompt = text * 800
    with pytest.warns(RuntimeWarning, match="cut to its last") as caught:
        result = generator.generate(prompt, truncate=True, temperature=0, **lengths)
    assert len(caught) == 1
    limit = lengths.get("max_length", 512) - lengths.get("max_new_tokens", 1)
    ids = generator.encode(prompt)
    ends = [generator.decode(ids[-n:]).lstrip("\ufffd") for n in range(limit - 20, limit + 1)]
    fitting = [end for end in ends if generator.count_tokens(end) <= limit]
    assert result.prompt == max(fitting, key=len), "the longest end that fits"
    assert result.prompt_tokens <= limit and prompt.endswith(result.prompt)
    with pytest.warns(RuntimeWarning, match="cut to its last") as caught:
        stream = generator.stream(prompt, truncate=True, temperature=0, **lengths)
    assert len(caught) == 1
    assert stream.prompt == result.prompt and "".join(stream) == result.new_text


@pytest.mark.plain
def test_a_warning_names_the_line_that_called(generator: TextGenerator) -> None:
    """However many frames lie between: a comprehension has one of its own before 3.12 only."""
    prompt = "word " * 600
    arguments = {"truncate": True, "max_new_tokens": 1}
    with pytest.warns(RuntimeWarning) as caught:
        generator.generate_batch([prompt, prompt + "a"], **arguments)
        generator.generate(prompt, **arguments)
        list(generator.stream(prompt, **arguments))
    code = sys._getframe().f_code
    lines = [w.lineno - code.co_firstlineno for w in caught if w.filename == __file__]
    assert lines == [6, 6, 7, 8]
    with pytest.warns(RuntimeWarning) as caught:
        warn("from here")
    assert caught[0].filename == __file__


def test_truncation_changes_nothing_that_fits(generator: TextGenerator) -> None:
    full = generator.decode(generator.encode("word " * 600)[:510])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for prompt in (PROMPT, full):
            assert generator.generate(prompt, truncate=True, max_new_tokens=2).prompt == prompt


@pytest.mark.parametrize("length", [2, 64, 512])
def test_truncation_keeps_as_much_as_fits(generator: TextGenerator, length: int) -> None:
    with pytest.warns(RuntimeWarning, match=f"of 601 tokens cut to its last {length - 1}: .* 512"):
        stream = generator.stream("word " * 600, truncate=True, max_length=length)
    assert generator.count_tokens(stream.prompt) == length - 1
    stream.close()


@pytest.mark.parametrize("wrong", [{"max_new_tokens": 512}, {"max_length": 1}, {"max_length": 513}])
def test_truncation_cannot_mend_the_settings(
    generator: TextGenerator, wrong: dict[str, int]
) -> None:
    (name,) = wrong
    for prompt in (PROMPT, "word " * 600):
        with pytest.raises(ParameterError) as caught:
            generator.generate(prompt, truncate=True, **wrong)
        assert caught.value.parameter == name


# --- what it measures


@pytest.fixture
def passes(generator: TextGenerator, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """A clock that only the model moves: reading the prompt takes 5 s, every later pass 1 s."""
    clock = [100.0]

    def tick(module: Any, arguments: Any, options: dict[str, Any], output: Any) -> None:
        clock[0] += 5.0 if options["input_ids"].shape[1] > 1 else 1.0

    hook = generator.model.register_forward_hook(tick, with_kwargs=True)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    yield clock
    hook.remove()


@pytest.mark.parametrize("steps", [2, 3, 20])
def test_times_of_a_generation(generator: TextGenerator, passes: list[float], steps: int) -> None:
    arguments: dict[str, Any] = {"max_new_tokens": steps, "logit_bias": {END: -100}, "seed": 0}
    for result in (
        generator.generate(PROMPT, **arguments),
        *generator.generate_batch([PROMPT, "The old computer"], **arguments),
    ):
        assert result.new_tokens == steps
        assert result.ttft == 5.0, "the prompt is read, one token is chosen"
        assert result.tokens_per_second == 1.0
        assert result.seconds == 5.0 + (steps - 1)


@pytest.mark.parametrize("steps", [2, 3, 20])
def test_times_of_a_stream(generator: TextGenerator, passes: list[float], steps: int) -> None:
    stream = generator.stream(PROMPT, max_new_tokens=steps, logit_bias={END: -100}, seed=0)
    list(stream)
    assert stream.new_tokens == steps
    assert (stream.ttft, stream.tokens_per_second) == (5.0, 1.0)


def test_one_token_streamed_has_no_decoding_speed(
    generator: TextGenerator, passes: list[float]
) -> None:
    stream = generator.stream(PROMPT, max_new_tokens=1)
    list(stream)
    assert stream.ttft == 5.0 and math.isnan(stream.tokens_per_second)


def test_one_token_has_no_decoding_speed(generator: TextGenerator) -> None:
    result = generator.generate(PROMPT, max_new_tokens=1, temperature=0)
    assert math.isnan(result.tokens_per_second) and 0 < result.ttft <= result.seconds


def test_warm_up_and_description(generator: TextGenerator) -> None:
    assert 0 < generator.warm_up() < 30
    assert repr(generator).startswith("TextGenerator(course-gpt-1m, cpu, ")
    assert generator.device == "cpu" and generator.device_label == "CPU"


def test_warming_up_is_two_tokens_and_draws_no_number(
    generator: TextGenerator, passes: list[float]
) -> None:
    before = torch.get_rng_state()
    assert generator.warm_up() == 5.0 + 1.0
    assert torch.equal(torch.get_rng_state(), before)


def test_what_ends_a_text_is_the_models_word(generator: TextGenerator) -> None:
    made = TextGenerator(generator.model, generator.tokenizer)
    assert made.name == "model" and made.end_ids == {END}
    config = generator.model.generation_config
    try:
        config.eos_token_id = [END, 5]
        assert TextGenerator(generator.model, generator.tokenizer).end_ids == {END, 5}
        generator.model.generation_config = None
        assert TextGenerator(generator.model, generator.tokenizer).end_ids == {None}
    finally:
        generator.model.generation_config, config.eos_token_id = config, END


def test_loading_takes_what_is_asked_for_before_what_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MODEL_NAME", "course-gpt-4m")
    monkeypatch.setenv("DEVICE", "nowhere")
    named = load("course-gpt-1m", device="cpu", dtype="bfloat16")
    assert named.name == "course-gpt-1m" and named.model.dtype == torch.bfloat16
    other = load(device="cpu")
    assert other.name == "course-gpt-4m" and other.parameters > 2 * named.parameters


# --- the next token


@pytest.mark.parametrize("parameters", [*SAMPLED, {"temperature": 0}], ids=repr)
def test_next_token_probabilities(larger: TextGenerator, parameters: dict[str, Any]) -> None:
    table = larger.next_token_probabilities(PROMPT, top=8192, **parameters)
    assert list(table.columns) == ["token", "id", "logit", "before", "after"]
    assert sorted(table["id"]) == list(range(8192))
    assert table["before"].is_monotonic_decreasing
    assert table["before"].sum() == pytest.approx(1, abs=1e-4)
    assert table["after"].sum() == pytest.approx(1, abs=1e-4)
    ids = torch.tensor([larger.encode(PROMPT)])
    with torch.inference_mode():
        logits = larger.model(ids).logits[0, -1].double()
    exponentials = torch.exp(logits - logits.max())
    expected = (exponentials / exponentials.sum())[table["id"].tolist()]
    assert torch.allclose(torch.tensor(table["before"].values), expected, atol=1e-6)
    changed = processors(GenerationSettings(**parameters))
    after = torch.softmax(changed(ids, logits.float()[None])[0], -1)[table["id"].tolist()]
    assert torch.allclose(torch.tensor(table["after"].values).float(), after, atol=1e-6)
    if parameters.get("temperature") == 0:
        assert table["after"].tolist() == [1.0] + [0.0] * 8191
    elif parameters.get("top_k") != 0:
        assert 1 < (table["after"] > 0).sum() <= 50
    else:
        assert (table["after"] - table["before"]).abs().max() < 1e-6


def test_temperature_moves_probability(larger: TextGenerator) -> None:
    def top(temperature: float) -> float:
        table = larger.next_token_probabilities(PROMPT, top=1, temperature=temperature, top_k=0)
        return float(table["after"][0])

    assert top(0.3) > top(1.0) > top(2.0)
    assert top(1.0) == pytest.approx(
        larger.next_token_probabilities(PROMPT, top=1)["before"][0], abs=1e-6
    )


def test_rows_of_next_token_probabilities(generator: TextGenerator) -> None:
    assert len(generator.next_token_probabilities(PROMPT)) == 10
    assert len(generator.next_token_probabilities(PROMPT, top=3)) == 3
    for top in (0, -1):
        with pytest.raises(ParameterError, match=f"top={top} .* must be a whole number from 1$"):
            generator.next_token_probabilities(PROMPT, top=top)
    full = generator.decode(generator.encode("word " * 600)[:512])
    assert generator.count_tokens(full) == 512
    assert len(generator.next_token_probabilities(full)) == 10, "the context itself fits"
    with pytest.raises(PromptTooLongError, match="513 tokens.*at most 512 tokens.*context of 512"):
        generator.next_token_logits(full + " word")
    assert generator.count_tokens("a") == 1 and len(generator.next_token_logits("a")) == 8192
    with pytest.raises(PromptTooLongError):
        generator.next_token_logits("")


def test_distributions_are_the_tables(generator: TextGenerator) -> None:
    """Repetitions are counted in the prompt."""
    changed = {"repetition_penalty": 1.5, "no_repeat_ngram_size": 1}
    before, after = generator.next_token_distributions("the the model", **changed)
    table = generator.next_token_probabilities("the the model", top=8192, **changed)
    ids = table["id"].tolist()
    assert table["before"].tolist() == before[ids].tolist()
    assert table["after"].tolist() == after[ids].tolist()
    assert all(after[token] == 0 for token in generator.encode("the the model"))


def test_softmax() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [100.0, 100.0]])
    expected = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    assert torch.allclose(probabilities(logits), expected)


# --- threads


def test_eight_threads_write_what_one_writes(generator: TextGenerator) -> None:
    """Seeds are global in torch: without the lock the threads would draw each other's numbers."""

    def write(seed: int) -> str:
        if seed % 2:
            return "".join(generator.stream(PROMPT, seed=seed, max_new_tokens=12, temperature=1.2))
        return generator.generate(PROMPT, seed=seed, max_new_tokens=12, temperature=1.2).new_text

    alone = [write(seed) for seed in range(8)]
    assert len(set(alone)) == 8
    found = [""] * 8

    def work(seed: int) -> None:
        found[seed] = write(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone


def test_generating_while_a_stream_is_read(generator: TextGenerator) -> None:
    stream = generator.stream(PROMPT, seed=1, max_new_tokens=10)
    lengths = [generator.generate(piece or "a", max_new_tokens=1).prompt for piece in stream
               if piece.strip()]  # fmt: skip
    assert lengths


# --- out of memory


def test_messages_that_mean_out_of_memory() -> None:
    cpu = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"
    gpu = "CUDA out of memory. Tried to allocate 2.00 GiB"
    assert is_out_of_memory(RuntimeError(cpu)) and is_out_of_memory(RuntimeError(gpu))
    assert is_out_of_memory(MemoryError()) and is_out_of_memory(RuntimeError("std::bad_alloc"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("memory"))


def test_other_errors_pass_through(
    generator: TextGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("something else is wrong")

    monkeypatch.setattr(generator.model, "generate", broken)
    with pytest.raises(RuntimeError, match="something else"):
        generator.generate(PROMPT)
    with pytest.raises(RuntimeError, match="something else"):
        list(generator.stream(PROMPT))


# A child process under a memory limit, with a small model that was never trained. Its cache
# grows by 2 × 2 layers × 128 numbers × 4 bytes = 2 KiB a token and text; its many heads make
# the attention over a long prompt large.
CHILD = """
import resource, sys, warnings
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel
from helpers.generator import TextGenerator
from helpers.models import locate

torch.set_num_threads(1)
megabytes, vocabulary, heads = map(int, sys.argv[1:])
config = GPT2Config(vocab_size=vocabulary, n_embd=128, n_layer=2, n_head=heads, n_positions=512,
                    eos_token_id=None, bos_token_id=None, attn_implementation="eager")
model = GPT2LMHeadModel(config).eval()
generator = TextGenerator(model, AutoTokenizer.from_pretrained(locate("course-gpt-1m")))
many = {"prompts": ["!"] * 64, "num_return_sequences": 16, "seed": 0}
generator.generate_batch(**many, max_new_tokens=2)
list(generator.stream("!", max_new_tokens=2))
used = next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if "VmSize" in l)
resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20, -1))
warnings.simplefilter("always")
"""


def under_a_limit(
    code: str, megabytes: int, vocabulary: int, heads: int
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CHILD + code, str(megabytes), str(vocabulary), str(heads)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_AS of Linux")
def test_shorter_retry_is_said_aloud() -> None:
    """64 tokens of 1024 texts take 128 MiB; 32 tokens half of it."""
    code = (
        "results = generator.generate_batch(**many, max_new_tokens=64)\n"
        "print('TOKENS', {len(ids) for r in results for ids in r.new_ids}, len(results))\n"
    )
    child = under_a_limit(code, 110, vocabulary=256, heads=2)
    assert child.returncode == 0, child.stderr[-3000:]
    retries = child.stderr.count("RuntimeWarning: out of memory with")
    assert retries >= 1, child.stderr[-3000:]
    said = "out of memory with 64 new tokens for 64 × 16 texts: trying again with 32"
    assert said in child.stderr
    assert f"TOKENS {{{64 >> retries}}} 64" in child.stdout


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_AS of Linux")
def test_nothing_fits() -> None:
    """400² × 128 heads × 4 bytes = 78 MiB for the attention of one prompt alone."""
    code = (
        "from system.errors import OutOfMemoryError\n"
        "try: generator.generate('word ' * 400, max_new_tokens=4)\n"
        "except OutOfMemoryError as error: print('ONE', error)\n"
        "try: list(generator.stream('word ' * 400, max_new_tokens=4))\n"
        "except OutOfMemoryError as error: print('TWO', error)\n"
        "print('THREE', generator.generate('!', max_new_tokens=1).new_tokens)\n"
    )
    child = under_a_limit(code, 60, vocabulary=8192, heads=128)
    assert child.returncode == 0, child.stderr[-3000:]
    assert child.stderr.count("RuntimeWarning: out of memory with") == 2, "from 4 to 2 to 1"
    for mark in ("ONE", "TWO"):
        (line,) = [line for line in child.stdout.splitlines() if line.startswith(mark)]
        assert "allocate" in line and "a smaller model" in line
    assert "THREE 1" in child.stdout, "a small request must still work"


def test_out_of_memory_is_not_a_parameter_error() -> None:
    assert issubclass(OutOfMemoryError, RuntimeError)
    assert not issubclass(OutOfMemoryError, ValueError)
