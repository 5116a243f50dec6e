"""classroom.scoring: labels compared by one forward pass, and the interval of a mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import helpers
from classroom.scoring import (
    accuracies,
    bootstrap,
    cache_mb,
    fits,
    gains,
    label_scores,
    reading_time,
)  # fmt: skip
from classroom.widgets import TokenSteering


@pytest.fixture(scope="module")
def generator() -> helpers.TextGenerator:
    return helpers.load("course-gpt-1m")


def test_the_shared_prefix_and_the_padding_change_no_score(
    generator: helpers.TextGenerator,
) -> None:
    """Each prompt alone, read whole, gives the same log-probabilities; more than one batch."""
    words = ("The cat", "A server answers", "In 1990 the city", "It", "The history of the river")
    prompts = [generator.encode(f"Which one? {w} {n} is") for n in range(4) for w in words]
    labels = generator.encode(" the")[:1] + generator.encode(" a")[:1]
    scores = label_scores(generator.model, prompts, labels)
    for ids, row in zip(prompts, scores, strict=True):
        with torch.inference_mode():
            logits = generator.model(input_ids=torch.tensor([ids])).logits[0, -1]
        alone = logits.log_softmax(-1)[labels].numpy()
        assert np.allclose(row, alone, atol=1e-3)


def test_prompts_that_share_nothing_are_scored_too(generator: helpers.TextGenerator) -> None:
    scores = label_scores(generator.model, [[5, 6], [7, 8, 9]], [10, 11])
    assert scores.shape == (2, 2) and (scores < 0).all()


def test_a_kept_prefix_is_the_same_cache_and_is_left_as_it_was(
    generator: helpers.TextGenerator,
) -> None:
    ids = generator.encode("The history of the city is long, and so is its name")
    _, prefix = reading_time(generator.model, ids[:-3])
    size = cache_mb(prefix)
    _, whole = reading_time(generator.model, ids)
    _, joined = reading_time(generator.model, ids[-3:], prefix)
    assert cache_mb(prefix) == size > 0
    assert cache_mb(joined) == cache_mb(whole) == pytest.approx(size * len(ids) / (len(ids) - 3))
    for one, other in zip(whole.layers, joined.layers, strict=True):
        assert torch.allclose(one.keys, other.keys, atol=1e-4)


def test_the_interval_holds_the_mean_and_narrows_with_more_items() -> None:
    few, many = bootstrap([1, 0] * 10, seed=1), bootstrap([1, 0] * 1000, seed=1)
    for low, high in (few, many):
        assert low < 0.5 < high
    assert many[1] - many[0] < (few[1] - few[0]) / 5
    assert bootstrap([1, 0] * 10, seed=1) == few
    # The normal approximation: 1.96 standard errors on either side.
    assert many[1] - many[0] == pytest.approx(2 * 1.96 * 0.5 / 2000**0.5, rel=0.1)


def test_accuracies_and_gains_count_the_same_items() -> None:
    """Ten items, two labels: six right, then eight, then the same six."""
    truth = np.array([0, 1] * 5)

    def told(right: int) -> np.ndarray:
        answer = np.where(np.arange(10) < right, truth, 1 - truth)
        return np.eye(2)[answer]

    scores = {"a, zero-shot": told(6), "a, few-shot": told(8), "a, context": told(6)}
    found = accuracies(scores, truth, seed=1)
    assert found["value"].tolist() == pytest.approx([60, 80, 60])
    assert ((found["low"] < found["value"]) & (found["value"] < found["high"])).all()
    gained = gains(scores, truth, seed=1)
    assert list(gained.index) == ["a, few-shot", "a, context"]
    assert gained["gain"].tolist() == ["+20 (+0 to +50)", "+0 (+0 to +0)"]
    assert set(gained["so"]) == {"null result"}
    sure = gains({"a, zero-shot": told(0), "a, few-shot": told(10)}, truth, seed=1)
    assert sure["so"].tolist() == ["a difference"]


def test_json_fits_its_schema_or_not() -> None:
    schema = {"type": "object", "required": ["a"]}
    assert fits('{"a": 1}', schema)
    assert not any(fits(text, schema) for text in ("{}", '{"a": 1', "", "[]"))


def test_tokens_are_banned_boosted_and_forced(generator: helpers.TextGenerator) -> None:
    steering = TokenSteering(generator, "Machine learning is", max_new_tokens=6)
    plain = steering.text.value
    steering.force.value = " not"
    assert "Machine learning is not" in steering.text.value and steering.text.value != plain
    steering.force.value = ""
    steering.boost.value, steering.strength.value = "banana", 20.0
    first = generator.encode(" banana")[0]
    assert steering.bias()[first] == 20.0
    steering.ban.value = "banana"
    assert steering.bias()[first] == -100.0
    _, after = generator.next_token_distributions(
        "Machine learning is", temperature=1.0, top_k=0, top_p=1.0, logit_bias=steering.bias()
    )
    assert after[first] < 1e-30
    steering.prompt.value = ""
    assert 'role="alert"' in steering.text.value and not steering.chart.value.count("<table>")
