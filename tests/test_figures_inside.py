"""What a model is inside, drawn from its configuration, and a map of attention."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, LlamaConfig

from classroom import figures


def texts(figure) -> str:
    return "\n".join(text.get_text() for text in figure.axes[0].texts)


def test_the_figure_follows_the_configuration() -> None:
    drawn = texts(figures.inside(GPT2Config(n_layer=3, n_head=4, n_embd=256, vocab_size=8192)))
    assert "3 times" in drawn and "K and V, 4 heads\n× 64" in drawn and "8,192 rows" in drawn


def test_grouped_heads_keep_fewer_keys_and_values() -> None:
    config = LlamaConfig(hidden_size=576, num_attention_heads=9, num_key_value_heads=3)
    drawn = texts(figures.inside(config))
    assert "attention\n9 heads" in drawn and "K and V, 3 heads\n× 64" in drawn


def test_an_attention_map_shows_each_share_up_to_the_token() -> None:
    weights = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    assert texts(figures.attention_map(weights, ["a", " b"])).split() == ["100", "25", "75"]
    with pytest.raises(ValueError, match=r"shape \(3, 3\) is needed"):
        figures.attention_map(weights, ["a", "b", "c"])
