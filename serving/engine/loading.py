"""The model as the engine runs it: its number format, its weights packed. (Lesson 08.)"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open

from helpers.models import load_model, locate
from serving.engine.forward import join_layers
from serving.engine.int8 import Int8Embedding, check_int8, quantize_model
from serving.engine.packed import pack_linear_layers
from system.errors import ParameterError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_for_engine(
    name: str, device: str, dtype: str, slots: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model for inference only, and its tokenizer.

    Args:
        name: a shipped model, a folder or a hub id.
        device: a torch device.
        dtype: "auto" (what suits the device), "float32", "bfloat16", "float16" or "int8".
        slots: most rows of a step.

    Raises:
        ModelNotFoundError, HubUnreachableError, ParameterError: as `load_model`.
        ParameterError: int8 where it cannot be computed.
    """
    return load_and_note(name, device, dtype, slots, lambda model: "")[:2]


def load_and_note(
    name: str, device: str, dtype: str, slots: int, note: Callable[[PreTrainedModel], str]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str]:
    """The same, and what `note` says of the model before its weights are quantized or packed."""
    if dtype == "int8":
        check_int8(device)
        model, tokenizer = load_model(name, device, "float32")
        noted = note(model)
        join_layers(model)
        quantize_model(model)
        return model, tokenizer, noted
    model, tokenizer = load_model(name, device, None if dtype == "auto" else dtype)
    noted = note(model)
    join_layers(model)
    # With one row a step gains by packed weights on AVX512 only; on AVX2 it loses a tenth.
    if slots > 1 or torch.backends.cpu.get_cpu_capability() == "AVX512":
        pack_linear_layers(model)
    return model, tokenizer, noted


def check_weights(name: str) -> None:
    """Refuse a model whose files are damaged or cut short, by their beginnings and sizes alone.

    Raises:
        ModelNotFoundError, HubUnreachableError: as `helpers.models.locate`.
        ParameterError: a file that cannot be read; names it.
    """
    for file in sorted(locate(name).glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise ParameterError(
                "model", name, f"one whose {file.name} is whole: {error}"
            ) from None


def number_format(model: PreTrainedModel) -> str:
    """Of a model's weights: "float32", "bfloat16", "float16" or "int8"."""
    if isinstance(model.get_input_embeddings(), Int8Embedding):
        return "int8"
    return str(model.dtype).removeprefix("torch.")
