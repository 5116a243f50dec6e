"""How much memory a model takes behind its engine: the formula of lesson 04, all slots in use.

    max(loading, weights + KV cache + activations) + tokenizer + prefix cache

The KV cache is that of `slots` texts of the greatest length. Prompts are read `prefill_chunk`
tokens at a time, so the activations are those of one chunk; logits there are of every row.
CTranslate2 reads whole prompts: there they are those of `slots` prompts of the greatest length.
What Python and torch take themselves is not in it: they are there once for all models.
"""

from __future__ import annotations

import ctypes
import gc
import sys

import torch

from helpers.device import default_dtype, resolve_device
from helpers.memory import (
    HEAP_ROOM,
    PRECISIONS,
    kv_cache_bytes,
    live_activations,
    shape,
    stored_format,
)
from serving.config import Config
from serving.engine.kv_cache import SPARE_COLUMNS

# Room that the KV cache takes for each of its bytes: it grows by moving to larger buffers, and the
# smaller ones leave holes. 1.2 to 1.8 on the shipped models, with 16 and 32 slots.
GROWTH = 1.5
# The tokenizer's tables and those for structured output, for each token of the vocabulary: 12 MB
# for the shipped models' 8,192, 84 MB for SmolLM2's 49,152.
TOKENIZER_BYTES = 1600
# Bytes of a weight, and of a number that is computed with.
FORMATS = {"float32": (4, 4), "bfloat16": (2, 2), "float16": (2, 2), "int8": (1, 4)}


def needed_bytes(name: str, config: Config) -> int:
    """The most that a model takes with these settings, in bytes.

    Args:
        name: a shipped model, a folder or a hub id (which is downloaded on first use).
        config: the server's settings.

    Raises:
        ParameterError, HubUnreachableError: as `helpers.memory.shape`.
    """
    of, dtype = shape(name), str(config.dtype)
    fast = config.engine == "ctranslate2"
    if dtype == "auto" and fast:
        dtype = "float32"
    elif dtype == "auto":
        dtype = str(default_dtype(resolve_device(config.device))).removeprefix("torch.")
    weight, number = FORMATS[dtype]
    weights = of.parameters * weight
    if dtype == "int8":  # an output layer that shares the embeddings' weights has its own here
        weights += of.vocabulary * of.hidden
    longest = min(config.max_length_limit, of.context)
    cache = kv_cache_bytes(of, longest + SPARE_COLUMNS, config.slots, number) * GROWTH
    at_once = config.slots * longest if fast else max(config.prefill_chunk, config.slots)
    logits = 3 * (config.slots - 1) * of.vocabulary * 4  # the first row's are in the formula
    activations = (live_activations(of, at_once, 1, number) + logits) * HEAP_ROOM
    stored = int(PRECISIONS[stored_format(name)].weight_bytes)
    read_as = 4 if dtype == "int8" else weight  # quantised once it is in memory
    if fast:  # the file is read as it lies
        stored = read_as = weight
    loading = of.parameters * (read_as + (stored if stored != read_as else 0))
    prefixes = 0 if fast else config.prefix_cache_mb * 2**20
    kept = of.vocabulary * TOKENIZER_BYTES + prefixes
    return int(max(loading, weights + cache + activations)) + kept


def give_back_memory() -> None:
    """Return to the system what nothing uses any more, after a model came or went.

    The C library keeps what was freed for later; glibc's can be asked to give it back.
    """
    gc.collect()  # an engine and its model refer to each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:
        trim(0)
