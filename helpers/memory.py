"""How much memory a model needs, computed from its configuration alone. (Lesson 04.)

    peak = runtime + max(loading, weights + KV cache + activations)

- weights: parameters × bytes a parameter;
- KV cache: 2 (keys and values) × layers × KV heads × head size × tokens × batch × bytes;
- activations: what the forward pass over the prompt holds at once, see `live_activations`;
- runtime: Python, torch and transformers themselves, which `helpers.peak` measures;
- loading: the stored and the converted weights together, where their formats differ.

The first two are exact (Pope et al., 2022, "Efficiently Scaling Transformer Inference",
https://arxiv.org/abs/2211.05102, section 3). MB are 10⁶ bytes.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.models import cards, locate
from system.errors import ParameterError

if TYPE_CHECKING:
    import pandas as pd

# Room that the C library's heap takes for every byte of live activations. Freed blocks
# leave holes between the blocks of the KV cache, and the next layer's do not all fit
# into them: 1.3 to 2.8 bytes, 2 in the middle, on random GPT-2 models of seven shapes
# that are not the course's, at 1000 to 2000 prompt tokens in all.
HEAP_ROOM = 2.0


@dataclass(frozen=True)
class Precision:
    """A number format: bytes a stored weight, and bytes a number in the computation.

    int8 and int4 store weights only; the computation runs in 16 bits. Their scales and
    the layers that are often left in 16 bits add a few per cent, which is not counted.
    """

    weight_bytes: float
    compute_bytes: float


PRECISIONS = {
    "fp32": Precision(4, 4),
    "fp16": Precision(2, 2),
    "int8": Precision(1, 2),
    "int4": Precision(0.5, 2),
}


@dataclass(frozen=True)
class Shape:
    """The sizes in a decoder-only model's configuration that decide its memory."""

    parameters: int
    layers: int
    hidden: int
    kv_heads: int
    head_size: int
    inner: int
    vocabulary: int
    context: int


@dataclass(frozen=True)
class MemoryEstimate:
    """The parts of a model's peak memory, in MB (10⁶ bytes)."""

    weights_mb: float
    kv_cache_mb: float
    activations_mb: float
    runtime_mb: float
    loading_mb: float

    @property
    def running_mb(self) -> float:
        """Weights, KV cache and activations: what a generation needs beside the runtime."""
        return self.weights_mb + self.kv_cache_mb + self.activations_mb

    @property
    def peak_mb(self) -> float:
        """The most that the process holds at any moment, from its start to its last token."""
        return self.runtime_mb + max(self.loading_mb, self.running_mb)


def shape(model: str | Path | Mapping[str, Any]) -> Shape:
    """The sizes of a model from its configuration; no weights are read or downloaded.

    Args:
        model: a name in the catalogue, a folder, a hub id (whose files are downloaded on
            first use), or a hub-style configuration: what a `config.json`
            holds, with its `model_type`.

    Raises:
        ParameterError: no decoder-only configuration, or a name that stands for nothing.
    """
    if isinstance(model, str | Path):
        return _named_shape(str(model))
    return _shape(json.dumps(dict(model), sort_keys=True, default=str))


def _named_shape(name: str) -> Shape:
    """The shape of a published, shipped or hub model."""
    card = cards().get(name)
    if card and card.config:
        return shape(card.config)
    return shape(json.loads((locate(name) / "config.json").read_text(encoding="utf-8")))


@functools.lru_cache
def _shape(config_json: str) -> Shape:
    """The shape of one configuration; the parameters are counted on a model without memory.

    torch's "meta" device makes tensors that have a shape and no numbers, so that a model
    of any size is built and counted in a moment.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    facts = json.loads(config_json)
    kind = facts.pop("model_type", None)
    if not kind:
        raise ParameterError("config", sorted(facts), "a hub-style configuration with model_type")
    try:
        config = AutoConfig.for_model(kind, **facts)
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(config)
        heads, hidden = int(config.num_attention_heads), int(config.hidden_size)
        layers = int(config.num_hidden_layers)
    except (ValueError, AttributeError) as error:
        reason = (str(error).splitlines() or [""])[0][:120]
        raise ParameterError("model_type", kind, f"a decoder-only model's ({reason})") from None
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None)
    return Shape(
        parameters=sum(p.numel() for p in empty.parameters()),
        layers=layers,
        hidden=hidden,
        kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_size=int(getattr(config, "head_dim", None) or hidden // heads),
        inner=int(inner or 4 * hidden),
        vocabulary=int(config.vocab_size),
        context=int(getattr(config, "max_position_embeddings", None) or 2048),
    )


def kv_cache_bytes(of: Shape, tokens: int, batch: int = 1, number_bytes: float = 4) -> float:
    """Bytes of the KV cache: 2 × layers × KV heads × head size × tokens × batch × bytes.

    Args:
        of: the model's shape.
        tokens: prompt and new tokens together.
        batch: sequences at once.
        number_bytes: bytes a number: 4 in float32, 2 in 16-bit formats.
    """
    return 2 * of.layers * of.kv_heads * of.head_size * tokens * batch * number_bytes


def live_activations(
    of: Shape, prompt_tokens: int, batch: int = 1, number_bytes: float = 4
) -> float:
    """Bytes of the tensors that the forward pass over the prompt holds at its widest moment.

    That moment lies in the feed-forward part of a layer. Of each prompt token there are
    then four vectors of the inner width (the activation function, GPT-2's GELU, keeps
    four at once; others two or three) and six of the hidden width (embeddings, positions,
    the layer's input, the residual, its normalised copy, the attention's output).
    Attention scores are never held whole (fused attention). Of the last position there
    are three rows of the vocabulary (logits, scores, probabilities), in float32.

    Args:
        of: the model's shape.
        prompt_tokens: tokens of the prompt.
        batch: sequences at once.
        number_bytes: bytes a number.
    """
    per_token = (4 * of.inner + 6 * of.hidden) * number_bytes
    return batch * prompt_tokens * per_token + 3 * batch * of.vocabulary * 4


def estimate(
    model: str | Path | Mapping[str, Any] | Shape,
    prompt_tokens: int,
    new_tokens: int,
    batch: int = 1,
    precision: str = "fp32",
    stored: str | None = None,
    runtime: float = 0.0,
) -> MemoryEstimate:
    """The memory that a generation needs, part by part.

    Args:
        model: as for `shape`, or a shape.
        prompt_tokens: tokens of the prompt.
        new_tokens: tokens to write.
        batch: sequences at once.
        precision: "fp32", "fp16", "int8" or "int4": the format in memory.
        stored: the format of the weights' file where it differs: both are then in memory
            while the weights are converted.
        runtime: MB of Python, torch and transformers: `helpers.peak.runtime_mb()`.

    Raises:
        ParameterError: a count below 1, an unknown format, or more tokens than the context.
    """
    of = model if isinstance(model, Shape) else shape(model)
    counts = {"prompt_tokens": prompt_tokens, "new_tokens": new_tokens, "batch": batch}
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ParameterError(name, count, "a whole number of at least 1")
    for name, given in (("precision", precision), ("stored", stored or precision)):
        if given not in PRECISIONS:
            raise ParameterError(name, given, f"one of {', '.join(PRECISIONS)}")
    tokens = prompt_tokens + new_tokens
    if tokens > of.context:
        raise ParameterError("prompt_tokens + new_tokens", tokens, f"at most {of.context}")
    number = PRECISIONS[precision]
    weights = of.parameters * number.weight_bytes
    file = 0.0 if stored in (None, precision) else of.parameters * PRECISIONS[stored].weight_bytes
    activations = live_activations(of, prompt_tokens, batch, number.compute_bytes) * HEAP_ROOM
    return MemoryEstimate(
        weights_mb=weights / 1e6,
        kv_cache_mb=kv_cache_bytes(of, tokens, batch, number.compute_bytes) / 1e6,
        activations_mb=activations / 1e6,
        runtime_mb=runtime,
        loading_mb=(weights + file) / 1e6,
    )


def stored_format(model: str | Path) -> str:
    """The number format of a model's file: "fp32", or "fp16" for the 16-bit formats.

    Args:
        model: a shipped model, a folder or a hub id.

    Raises:
        ParameterError, HubUnreachableError: as `helpers.models.locate`.
    """
    facts = json.loads((locate(str(model)) / "config.json").read_text(encoding="utf-8"))
    dtype = facts.get("dtype") or facts.get("torch_dtype")
    return "fp16" if dtype in ("float16", "bfloat16") else "fp32"


def sizes(models: list[str], prompt_tokens: int = 512, new_tokens: int = 512) -> pd.DataFrame:
    """A table of models by number formats: GB (10⁹ bytes) for one sequence, no runtime.

    Args:
        models: as for `shape`.
        prompt_tokens: tokens of the prompt.
        new_tokens: tokens to write.

    Returns:
        a row a model: parameters_m (millions), and fp32_gb, fp16_gb, int8_gb, int4_gb.
    """
    import pandas as pd

    rows = []
    for name in models:
        of = shape(name)
        row: dict[str, Any] = {"model": name, "parameters_m": of.parameters / 1e6}
        for precision in PRECISIONS:
            needs = estimate(of, prompt_tokens, new_tokens, precision=precision)
            row[precision + "_gb"] = needs.running_mb / 1000
        rows.append(row)
    return pd.DataFrame(rows)
