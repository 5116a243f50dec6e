"""The tokenizer of the fetched model: digits and the white space before them."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from helpers import memory
from helpers.models import cards, models_folder
from tools.fetch_model import split_digits


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """As transformers reads it from GGUF: byte-level, with one merge, of two line ends."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate([*alphabet, "ĊĊ"])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ċ", "Ċ")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def test_line_ends_before_a_digit_are_one_token(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.tokenize("\n\n12") == ["Ċ", "Ċ", "1", "2"]
    split_digits(tokenizer)
    assert tokenizer.tokenize("\n\n12") == ["ĊĊ", "1", "2"]


def test_it_is_saved_with_the_tokenizer(tokenizer: PreTrainedTokenizerFast, tmp_path) -> None:
    split_digits(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    kept = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    kinds = [part["type"] for part in kept["pre_tokenizer"]["pretokenizers"]]
    assert kinds == ["Digits", "ByteLevel"]
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert again.tokenize("\n\n12") == ["ĊĊ", "1", "2"]


def test_catalogue_and_configuration_say_the_same(smollm2: str) -> None:
    card = cards()[smollm2]
    of = memory.shape(models_folder() / card.name)
    assert (of.parameters, of.context) == (card.parameters, card.context)
    assert (of.layers, of.hidden, of.kv_heads, of.head_size) == (30, 576, 3, 64)
    assert memory.kv_cache_bytes(of, 1) == 2 * 30 * 3 * 64 * 4
