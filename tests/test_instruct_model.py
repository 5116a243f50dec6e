"""What was written for GPT-2's shape holds for the instruct model (Llama's): memory, batches."""

from __future__ import annotations

import math
import os

import pytest
import torch

from helpers import memory, peak
from helpers.generator import TextGenerator, load
from helpers.isolated import run_isolated
from helpers.models import models_folder
from helpers.quality import bits_per_byte

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def generator(smollm2: str) -> TextGenerator:
    return load(smollm2, device="cpu")


def test_kv_cache_holds_the_grouped_heads_only(generator: TextGenerator, smollm2: str) -> None:
    ids = torch.ones((3, 17), dtype=torch.long)
    with torch.inference_mode():
        cache = generator.model(input_ids=ids, use_cache=True).past_key_values
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert kept == memory.kv_cache_bytes(memory.shape(smollm2), 17, batch=3)


def test_padded_rows_write_what_they_write_alone(generator: TextGenerator) -> None:
    prompts = ["Paris", "Machine learning is", "Name three things that a server of models needs:"]
    arguments = {"max_new_tokens": 12, "temperature": 0}
    alone = [generator.generate(prompt, **arguments).new_ids for prompt in prompts]
    batch = [result.new_ids for result in generator.generate_batch(prompts, **arguments)]
    assert batch == alone


def test_its_text_is_better_predicted_than_the_small_models_predict_it(
    generator: TextGenerator,
) -> None:
    text = (models_folder() / "heldout.md").read_text(encoding="utf-8")[:3000]
    small = load("course-gpt-4m", device="cpu")
    found = bits_per_byte(generator.model, generator.tokenizer, text)
    assert not math.isnan(found)
    assert found < bits_per_byte(small.model, small.tokenizer, text)


@pytest.mark.soak
@pytest.mark.skipif(not hasattr(os, "fork"), reason="peaks differ on Windows")
def test_its_peak_is_predicted(smollm2: str) -> None:
    runtime = peak.runtime_mb(smollm2)
    measured = run_isolated(
        peak.peak_after_generation, model=smollm2, prompt_tokens=64, new_tokens=16, batch=1
    )
    needs = memory.estimate(smollm2, 64, 16, stored="fp32", runtime=runtime)
    assert needs.peak_mb == pytest.approx(measured, rel=0.15)
