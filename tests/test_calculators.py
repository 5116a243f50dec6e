"""The calculators of lessons 01, 04 and 05: what they show is what was computed."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest

from classroom.widgets import MemoryCalculator, TokenCalculator
from classroom.widgets.calculators import CARDS_GB, smallest_card
from helpers import memory
from system.errors import ParameterError


def words(markup: str) -> str:
    return html.unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", markup, flags=re.S))


@pytest.mark.parametrize("card", CARDS_GB)
def test_the_smallest_card_that_fits(card: int) -> None:
    """A need of exactly a card's memory fits it; one byte more needs the next card."""
    assert smallest_card(1000 * card) == card
    larger = [gb for gb in CARDS_GB if gb > card]
    assert smallest_card(1000 * card + 1e-6) == (larger[0] if larger else None)
    assert smallest_card(0.001) == CARDS_GB[0] == min(CARDS_GB)


@pytest.mark.parametrize("precision", list(memory.PRECISIONS))
@pytest.mark.parametrize("model", ["gpt2", "llama-2-7b", "llama-2-70b"])
def test_memory_calculator_names_a_card_that_holds_what_it_shows(
    model: str, precision: str
) -> None:
    """Every part is the estimate's; the card holds the sum, and no smaller one does."""
    shown = MemoryCalculator([model, "gpt2-xl"], precision)
    shown.tokens.value, shown.batch.value = 1000, 8
    needs = memory.estimate(memory.shape(model), 500, 500, 8, precision)
    text = words(shown.shown.value)
    sizes = [float(n.replace(",", "")) * (1000 if unit == "GB" else 1)
             for n, unit in re.findall(r"([\d,.]+) (GB|MB) ", text + " ")]  # fmt: skip
    expected = [needs.weights_mb, needs.kv_cache_mb, needs.activations_mb, needs.running_mb]
    assert sizes[:4] == pytest.approx(expected, rel=0.01, abs=0.06)
    card = re.search(r"Smallest card: (\d+) GB", text)
    if card is None:
        assert "No single card" in text and needs.running_mb > 1000 * max(CARDS_GB)
        return
    assert needs.running_mb <= 1000 * int(card[1])
    assert all(needs.running_mb > 1000 * gb for gb in CARDS_GB if gb < int(card[1]))


def test_the_length_ends_where_the_models_context_does() -> None:
    shown = MemoryCalculator(["llama-2-7b", "gpt2"])
    shown.tokens.value = 4096
    shown.model.value = "gpt2"
    assert shown.tokens.max == shown.tokens.value == 1024
    shown.model.value = "llama-2-7b"
    assert shown.tokens.max == 4096


def test_memory_calculator_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ParameterError, match="models"):
        MemoryCalculator([])
    with pytest.raises(ParameterError, match="precision"):
        MemoryCalculator(["gpt2"], "fp1")


def test_token_calculator_counts_and_computes() -> None:
    from transformers import AutoTokenizer

    from helpers.models import locate

    tokenizer: Any = AutoTokenizer.from_pretrained(locate("course-gpt-1m"))
    asked: list[tuple[int, int]] = []

    def cost(prompt: int, new: int) -> dict[str, float]:
        asked.append((prompt, new))
        return {"1,000 requests ($)": 0.5, "tokens": prompt + new}

    shown = TokenCalculator(tokenizer, cost, "The server", 40, context=64)
    count = len(tokenizer("The server")["input_ids"])
    assert asked == [(count, 40)]
    assert f"{count + 40}" in words(shown.shown.value) and "refused" not in shown.shown.value
    assert shown.new_tokens.max == 63  # the whole context is never free
    shown.new_tokens.value = 63
    assert asked[-1] == (count, 63) and "Past the context of 64 tokens" in words(shown.shown.value)
    shown.prompt.value = "x " * 900
    assert f"and {asked[-1][0] - 200} more tokens" in words(shown.shown.value)
    shown.prompt.value = "日 $5"
    assert "bytes:\\x" in words(shown.shown.value) and "\ufffd" not in shown.shown.value
