"""What expected values are computed with: the shipped tokenizer and models, loaded once."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from helpers.generator import TextGenerator

MODEL = "course-gpt-4m"  # the model that tasks name


@cache
def generator(name: str = MODEL) -> TextGenerator:
    """A shipped model on the CPU, whatever device the lesson uses."""
    from helpers.generator import load

    return load(name, device="cpu")


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    """The tokenizer that the shipped models share; far lighter than a model."""
    from transformers import AutoTokenizer

    from helpers.models import models_folder

    return AutoTokenizer.from_pretrained(models_folder() / MODEL)


def count_tokens(text: str) -> int:
    """How many tokens a text has."""
    return len(tokenizer()(text, verbose=False)["input_ids"])


def context() -> int:
    """The context of `MODEL` in tokens."""
    from helpers.models import cards

    return cards()[MODEL].context
