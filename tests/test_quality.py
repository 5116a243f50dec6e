"""Bits per byte, against the definition worked out by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from helpers.generator import TextGenerator, load
from helpers.models import models_folder
from helpers.quality import bits_per_byte

TEXT = "A model predicts the next token — naïvely, “one” at a time.<|endoftext|>Another document."


@pytest.fixture(scope="module")
def generator() -> TextGenerator:
    return load("course-gpt-4m", device="cpu")


@pytest.fixture(scope="module")
def heldout() -> str:
    return (models_folder() / "heldout.md").read_text(encoding="utf-8")[:4000]


class Uniform(nn.Module):
    """Finds every one of `vocabulary` tokens equally likely."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(()))
        self.vocabulary = vocabulary

    def forward(self, input_ids: torch.Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self.zero.expand(*input_ids.shape, self.vocabulary))


class Bigram(nn.Module):
    """Looks at the last token only, so that it does not matter where a window begins."""

    def __init__(self) -> None:
        super().__init__()
        chance = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.randn(16, 8192, generator=chance))
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        assert torch.equal(attention_mask, torch.ones_like(input_ids))
        self.shapes.append(tuple(input_ids.shape))
        return SimpleNamespace(logits=self.table[input_ids % 16].half())


def by_hand(generator: TextGenerator, text: str) -> float:
    """One long window, one token after the other, in float64."""
    end = generator.tokenizer.eos_token_id
    documents = [d.strip() for d in text.split("<|endoftext|>")]
    ids = [end]
    for document in documents:
        ids += [*generator.encode(document), end]
    with torch.inference_mode():
        logits = generator.model(input_ids=torch.tensor([ids])).logits[0].double()
    nats = 0.0
    for position, token in enumerate(ids[1:]):
        row = logits[position]
        nats += float(torch.logsumexp(row, 0) - row[token])
    return nats / math.log(2) / sum(len(d.encode()) for d in documents)


def test_definition(generator: TextGenerator) -> None:
    found = bits_per_byte(generator.model, generator.tokenizer, TEXT)
    assert found == pytest.approx(by_hand(generator, TEXT), rel=1e-4)


def test_windows_and_batches_change_nothing_for_a_bigram_model(generator: TextGenerator) -> None:
    end, documents = generator.tokenizer.eos_token_id, TEXT.split("<|endoftext|>")
    ids = [end, *generator.encode(documents[0]), end, *generator.encode(documents[1]), end]
    model = Bigram()
    rows = model.table.detach()[torch.tensor(ids[:-1]) % 16].half().double().log_softmax(-1)
    nats = -sum(float(row[token]) for row, token in zip(rows, ids[1:], strict=True))
    right = nats / math.log(2) / sum(len(d.encode()) for d in documents)
    predicted = len(ids) - 1
    for context in (1, 3, predicted - 1, predicted, predicted + 1):
        for batch_size in (1, 4):
            model.shapes.clear()
            found = bits_per_byte(model, generator.tokenizer, TEXT, context, batch_size)
            assert found == pytest.approx(right, rel=1e-5)
            assert {columns for _, columns in model.shapes} == {context}
            assert sum(count for count, _ in model.shapes) == math.ceil(predicted / context)
            assert all(count == batch_size for count, _ in model.shapes[:-1])
    model.shapes.clear()
    bits_per_byte(model, generator.tokenizer, "words " * 4700)
    assert model.shapes[0] == (8, 512), "unless told otherwise"


def test_blind_guess(generator: TextGenerator) -> None:
    text = TEXT.replace("<|endoftext|>", " ")
    tokens = generator.count_tokens(text) + 1  # and the end of the text
    found = bits_per_byte(Uniform(8192), generator.tokenizer, text)
    assert found == pytest.approx(13 * tokens / len(text.encode()), rel=1e-5)


def test_batches_do_not_matter_and_windows_do(generator: TextGenerator, heldout: str) -> None:
    def measure(**how: int) -> float:
        return bits_per_byte(generator.model, generator.tokenizer, heldout, **how)

    assert measure(batch_size=1) == pytest.approx(measure(batch_size=5), rel=1e-5)
    assert measure(context=512) < measure(context=4), "the context must help"


def test_training_helped(generator: TextGenerator, heldout: str) -> None:
    torch.manual_seed(0)
    untrained = AutoModelForCausalLM.from_config(generator.model.config).eval()
    trained = bits_per_byte(generator.model, generator.tokenizer, heldout)
    assert trained < 0.8 * bits_per_byte(untrained, generator.tokenizer, heldout)
    assert 0.5 < trained < 3.0


def test_blank_documents_do_not_count(generator: TextGenerator) -> None:
    def measure(text: str) -> float:
        return bits_per_byte(generator.model, generator.tokenizer, text)

    assert measure("some text") == measure("\n<|endoftext|> some text <|endoftext|>  ")
    for blank in ("", " \n", "<|endoftext|> <|endoftext|>"):
        with pytest.raises(
            ValueError,
            match="^text: no document in it .got only blanks.; pass some text to measure$",
        ):
            measure(blank)
