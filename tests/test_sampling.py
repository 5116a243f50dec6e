"""Both forms of the parameters: the engine's rows against transformers' processors."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from helpers.generator import TextGenerator, load
from helpers.sampling import (
    FORMS,
    _narrow,
    _nucleus,
    _whole,
    candidates,
    generate_arguments,
    next_tokens,
    processors,
    shaped,
    shapers,
)
from helpers.settings import GenerationSettings

VOCABULARY = 700


class Row:
    def __init__(self, settings: GenerationSettings, ids: list[int], seed: int = 0) -> None:
        self.settings, self.ids = settings, ids
        self.generator: torch.Generator | None = torch.Generator().manual_seed(seed)


def random_settings(chance: random.Random, **parameters: Any) -> GenerationSettings:
    """Any parameter at, between and away from the ends of its range."""
    return GenerationSettings(
        **{
            "temperature": chance.choice([0.05, 0.3, 0.7, 1.0, 1.6, 2.0]),
            "top_k": chance.choice([0, 0, 1, 5, 50, 300, 1000]),
            "top_p": chance.choice([1.0, 1.0, 0.95, 0.5, 0.05, 1e-9]),
            "repetition_penalty": chance.choice([1.0, 1.0, 0.5, 0.7, 1.3, 2.0]),
            "no_repeat_ngram_size": chance.choice([0, 0, 1, 2, 3, 10]),
            "logit_bias": {
                chance.randrange(VOCABULARY): chance.choice([-100, -3.5, 0, 2, 100])
                for _ in range(chance.choice([0, 0, 1, 5]))
            },
            **parameters,
        }
    )


def random_rows(chance: random.Random, count: int, **parameters: Any) -> list[Row]:
    """Rows of ragged lengths over few different tokens, so that runs come twice."""
    return [
        Row(random_settings(chance, **parameters), chance.choices(range(9), k=length))
        for length in (chance.randint(1, 30) for _ in range(count))
    ]


def test_every_parameter_of_the_logits_is_tried() -> None:
    rows = random_rows(random.Random(0), 50)
    for name, form in FORMS.items():
        assert name in GenerationSettings.model_fields
        assert {form.on(row.settings) for row in rows} == {True, False}, name


@pytest.mark.parametrize("sharpness", [0.5, 3.0, 8.0])
def test_probabilities_are_those_of_transformers_processors(sharpness: float) -> None:
    """Every row of a step, whatever its settings and those of the rows beside it."""
    chance = random.Random(sharpness)
    torch.manual_seed(1)
    logits = torch.randn(200, VOCABULARY) * sharpness
    before = logits.clone()
    rows = random_rows(chance, len(logits))
    scores = shaped(logits, rows)
    assert torch.equal(logits, before)
    for kind in (_narrow, _nucleus, _whole):
        group = [i for i, row in enumerate(rows) if kind(row.settings)]
        assert len(group) > 5
        values, columns = candidates(scores[group], [rows[i].settings for i in group])
        for n, i in enumerate(group):
            ours = torch.zeros(VOCABULARY)
            ours[columns[n]] = values[n].softmax(-1)
            ids = torch.tensor([rows[i].ids])
            theirs = processors(rows[i].settings)(ids, logits[i : i + 1].clone())[0].softmax(-1)
            torch.testing.assert_close(ours, theirs, atol=5e-7, rtol=1e-3)
            assert torch.equal(ours > 0, theirs > 0)


def test_greedy_tokens_are_those_of_transformers_processors() -> None:
    torch.manual_seed(2)
    logits = torch.randn(200, VOCABULARY) * 4
    logits[:, :9] += 4  # the tokens that already stand there are probable
    rows = random_rows(random.Random(2), len(logits), temperature=0)
    tokens = next_tokens(logits, rows)
    for row, scores, token in zip(rows, logits, tokens, strict=True):
        theirs = processors(row.settings)(torch.tensor([row.ids]), scores[None].clone())
        assert token == int(theirs.argmax())
    assert len(set(tokens)) > 50


@pytest.mark.parametrize("texts", [1, 3])
def test_padding_is_no_text(texts: int) -> None:
    """A batch padded with a token that also stands in the text, as end-of-text may."""
    chance = random.Random(3)
    torch.manual_seed(3)
    for _ in range(60):
        settings = random_settings(chance, num_return_sequences=texts)
        rows = [Row(settings, chance.choices(range(9), k=chance.randint(1, 12)))
                for _ in range(4 * texts)]  # fmt: skip
        for n, row in enumerate(rows):  # the texts of a prompt are equally long
            first = rows[n - n % texts]
            row.ids = row.ids[:1] * len(first.ids) if n % texts else row.ids
        longest = max(len(row.ids) for row in rows)
        padding = [longest - len(row.ids) for row in rows]
        ids = torch.tensor([[0] * more + row.ids for more, row in zip(padding, rows, strict=True)])
        logits = torch.randn(len(rows), VOCABULARY) * 4
        arguments = generate_arguments(settings, padding[::texts])
        if shapers(settings):
            theirs = arguments["logits_processor"](ids, logits.clone())
            torch.testing.assert_close(shaped(logits, rows), theirs)
        else:
            assert "logits_processor" not in arguments


def test_tokens_are_drawn_as_often_as_the_probabilities_say() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -6.0])
    settings = GenerationSettings(temperature=1.0, top_k=4, top_p=0.95)
    draws = 20_000
    rows = [Row(settings, [0], seed=i) for i in range(draws)]
    counts = torch.bincount(torch.tensor(next_tokens(logits.expand(draws, 5), rows)), minlength=5)
    expected = processors(settings)(torch.zeros(1, 1).long(), logits[None])[0].softmax(-1)
    torch.testing.assert_close(counts / draws, expected, atol=0.015, rtol=0)


def test_rows_without_numbers_are_told() -> None:
    logits = torch.randn(3, 20)
    logits[1, 4] = torch.nan
    settings = GenerationSettings(seed=1)
    tokens = next_tokens(logits, [Row(settings, [0]) for _ in range(3)])
    assert tokens[1] == -1 and min(tokens[0], tokens[2]) >= 0


@pytest.fixture(scope="module")
def generator() -> TextGenerator:
    return load("course-gpt-1m", device="cpu")


COMBINATIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.0, "top_k": 0},
    {"temperature": 0.3},
    {"temperature": 2.0, "top_k": 3},
    {"temperature": 1.0, "top_k": 0, "top_p": 0.5},
    {"temperature": 0.8, "top_k": 200, "top_p": 0.9},
    {"top_k": 0, "repetition_penalty": 1.6},
    {"top_k": 0, "no_repeat_ngram_size": 1},
    {"temperature": 1.3, "top_k": 40, "top_p": 0.7, "repetition_penalty": 0.7,
     "no_repeat_ngram_size": 2},
    {"temperature": 0, "repetition_penalty": 1.5},
    {"top_k": 0, "logit_bias": {5: 4, 300: -100}, "repetition_penalty": 1.3},
]  # fmt: skip


@pytest.mark.parametrize("parameters", COMBINATIONS, ids=repr)
def test_processors_do_what_generate_does(
    generator: TextGenerator, parameters: dict[str, Any]
) -> None:
    """The probabilities of one step, ours against those inside transformers' `generate`."""
    prompt = "the data and the model and the data and the"
    chosen = GenerationSettings(**parameters)
    ids = torch.tensor([generator.encode(prompt)])
    arguments: dict[str, Any] = {"do_sample": not chosen.greedy}
    for name in ("repetition_penalty", "no_repeat_ngram_size"):
        arguments[name] = getattr(chosen, name)
    if not chosen.greedy:
        arguments |= {n: getattr(chosen, n) for n in ("temperature", "top_k", "top_p")}
    if chosen.logit_bias:
        arguments["sequence_bias"] = {(t,): bias for t, bias in chosen.logit_bias.items()}
    theirs = generator.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=1,
        output_scores=True,
        return_dict_in_generate=True,
        **arguments,
    )
    logits = generator.next_token_logits(prompt)[None]
    ours = processors(chosen)(ids, logits.clone())
    expected, found = torch.softmax(theirs.scores[0], -1), torch.softmax(ours, -1)
    if chosen.greedy:  # generate leaves the scores whole and takes the largest
        assert found.max() == 1.0
        assert int(found.argmax()) == int(expected.argmax()) == int(theirs.sequences[0, -1])
        return
    assert torch.allclose(found, expected, atol=1e-7)
    assert torch.equal(found > 0, expected > 0)
    plain = torch.softmax(logits, -1)
    changes = parameters != {"temperature": 1.0, "top_k": 0}
    assert torch.allclose(found, plain, atol=1e-7) != changes


def test_greedy_arguments_hold_nothing_that_generate_warns_about() -> None:
    greedy = GenerationSettings(temperature=0)
    sampled = GenerationSettings(temperature=0.5, top_k=7, top_p=0.4)
    assert generate_arguments(greedy) == {"do_sample": False, "num_return_sequences": 1}
    arguments = generate_arguments(sampled)
    assert arguments["do_sample"] is True and "logits_processor" not in arguments
    assert [arguments[n] for n in ("temperature", "top_k", "top_p")] == [0.5, 7, 0.4]
    assert (
        len(generate_arguments(GenerationSettings(repetition_penalty=1.1))["logits_processor"]) == 1
    )
