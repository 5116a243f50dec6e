"""The engine that the settings ask for, with its model loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.config import Config
from serving.engine.interface import TextEngine

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def build(config: Config, device: str) -> tuple[TextEngine, PreTrainedTokenizerBase, str]:
    """The engine, not running yet, its tokenizer, and the weights' fingerprint.

    Args:
        config: the server's settings.
        device: a torch device.

    Raises:
        ParameterError, OSError, TypeError: the model cannot be loaded or served.
    """
    if config.engine == "ctranslate2":
        from serving.engine.fast.loading import fast_engine

        return fast_engine(config, device)
    from serving.engine.engine import Engine
    from serving.engine.loading import load_and_note
    from serving.guard.fingerprint import fingerprint

    note = fingerprint if config.response_cache_mb else lambda model: ""
    given = (config.model_name, device, config.dtype, config.slots)
    model, tokenizer, weights = load_and_note(*given, note)
    engine = Engine(
        model,
        tokenizer,
        slots=config.slots,
        queue_length=config.queue_length,
        prefill_chunk=config.prefill_chunk,
        batching=config.batching,
        prefix_cache_bytes=config.prefix_cache_mb * 2**20,
    )
    return engine, tokenizer, weights
