"""What lesson 08 measures with: quality, the parts of a step, layers replaced, CTranslate2.

What the lesson teaches (quantization, speculative decoding, the timing loop) stands in its cells.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.ao.nn.quantized.dynamic import Linear as DynamicLinear
from transformers.pytorch_utils import Conv1D

from helpers.generator import TextGenerator, load
from helpers.models import locate, models_folder
from helpers.quality import bits_per_byte
from serving.engine.int8 import Int8Embedding, Int8Linear
from serving.engine.packed import (
    bias_of,
    forget,
    forget_files,
    leave_file,
    linear_layers,
    rows_of,
)
from serving.footprint import give_back_memory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONTEXT = 64  # tokens of a window of held-out text
LINEAR = ("mm", "linear", "matmul", "mkl", "gemm")  # operators of matrix products, by their names
ATTENTION = ("attention", "softmax", "bmm")
HELD_OUT = models_folder() / "heldout.md"  # no model of the course was trained on it


@dataclass(frozen=True)
class Quality:
    """How well a model predicts a held-out text.

    Attributes:
        bits: bits per byte.
        best: the most probable next token at every position of the text.
    """

    bits: float
    best: list[int]

    def agreement(self, other: Quality) -> float:
        """The share (%) of positions at which both find the same token most probable."""
        same = sum(a == b for a, b in zip(self.best, other.best, strict=True))
        return 100 * same / len(self.best)


class _Remembering(nn.Module):
    """A model that remembers its best tokens, so that the text is read once for both figures."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.best = model, list[int]()

    def forward(self, **inputs: Any) -> Any:
        answer = self.model(**inputs)
        self.best += answer.logits.argmax(-1).flatten().tolist()
        return answer


def quality(model: nn.Module, tokenizer: PreTrainedTokenizerBase, text: str) -> Quality:
    """Bits per byte of a text, and the tokens that greedy decoding would choose in it.

    Args:
        model: answers `.logits` of shape (rows, tokens, vocabulary).
        tokenizer: the model's own.
        text: held out; the last window's padding counts among the best tokens, too.
    """
    remembering = _Remembering(model)
    bits = bits_per_byte(remembering, tokenizer, text, CONTEXT, batch_size=1)  # for its logits
    return Quality(bits, remembering.best)


def fresh(name: str) -> TextGenerator:
    """A model as its file has it, on the CPU; what is no longer used is freed first."""
    _make_room()
    return load(name, "cpu")


def _make_room() -> None:
    give_back_memory()  # models refer to themselves, so they do not go on their own
    forget_files()  # those that wait need not stay in memory meanwhile


def replace_layers(model: nn.Module, make: Callable[[Tensor, Tensor | None], nn.Module]) -> None:
    """Put other layers in the place of the linear ones, one by one; the mapped file is left.

    Args:
        model: for inference; its embeddings stay.
        make: weight of shape (outputs, inputs) and bias, or None → the new layer.
    """
    for parent, name, layer in linear_layers(model):
        bias = bias_of(layer)
        rows = rows_of(layer).detach().contiguous()
        setattr(parent, name, make(rows, None if bias is None else bias.detach()))
        forget(layer.get_parameter("weight").detach())
    leave_file(model.parameters())


def to_bfloat16(model: nn.Module) -> None:
    """All parameters in 16 bits, in place, one by one."""
    for parameter in model.parameters():
        before = parameter.data
        parameter.data = before.bfloat16()
        forget(before)


def change_weights(model: nn.Module, change: Callable[[Any], Any]) -> None:
    """Give the linear layers other numbers, in place.

    Args:
        model: embeddings that share an output layer's weights change with it.
        change: weights as an array of shape (outputs, inputs) → as many numbers, in any shape.
    """
    for _, _, layer in linear_layers(model):
        weight = layer.get_parameter("weight")
        rows = rows_of(layer).detach()
        changed = torch.from_numpy(change(rows.contiguous().numpy())).reshape(rows.shape)
        weight.data = changed.t().contiguous() if type(layer) is Conv1D else changed


def torch_dynamic(model: nn.Module) -> None:
    """Dynamic int8 as torch has it, in place: `quantize_dynamic`, but layer by layer.

    GPT-2's `Conv1D` layers it does not see.
    """
    with warnings.catch_warnings():  # deprecated; torchao, its successor, is not installed
        warnings.simplefilter("ignore")
        for parent, name, layer in linear_layers(model):
            if type(layer) is nn.Linear:
                cast(Any, layer).qconfig = torch.ao.quantization.default_dynamic_qconfig
                setattr(parent, name, DynamicLinear.from_float(layer))
                forget(layer.weight.detach())
    leave_file(model.parameters())


def step_bytes(model: nn.Module) -> int:
    """Bytes of the weights that linear layers read at each step of decoding.

    Plain layers, torch's and the service's int8 layers, and any that keep a weight's `integers`.
    """
    total = sum(layer.get_parameter("weight").nbytes for _, _, layer in linear_layers(model))
    for layer in model.modules():
        if isinstance(layer, Int8Linear):
            total += torch.ops.quantized.linear_unpack(layer.packed)[0].numel()
        elif isinstance(layer, DynamicLinear):
            total += layer.weight().numel()
        elif not isinstance(layer, Int8Embedding):
            total += getattr(layer, "integers", torch.empty(0)).nbytes
    return total


def step_parts(step: Callable[[], object], repeats: int = 5) -> dict[str, float]:
    """Where the milliseconds of a step go.

    Operators are timed by torch's profiler, the whole step without it, because the profiler
    slows what it watches. What no operator took is Python between them.

    Args:
        step: runs one step.
        repeats: how often; medians and means count.

    Returns:
        linear layers, attention, other operators, Python: ms of one step.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler writes what it does
    from torch.profiler import ProfilerActivity, profile

    step()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(repeats):
            step()
    parts = {"linear layers": 0.0, "attention": 0.0, "other operators": 0.0}
    for event in seen.key_averages():
        name = event.key.lower()
        part = "other operators"
        if any(word in name for word in ATTENTION):
            part = "attention"
        elif any(word in name for word in LINEAR):
            part = "linear layers"
        parts[part] += event.self_cpu_time_total / 1000 / repeats
    parts["Python between them"] = max(0.0, 1000 * median(times) - sum(parts.values()))
    return parts


def compiler() -> str | None:
    """The C++ compiler that torch.compile calls on a CPU, or None: it does not come with torch."""
    return shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")


# --- CTranslate2 --------------------------------------------------------------------------


def convert(name: str, folder: Path) -> Path:
    """Write a GPT-2 model for CTranslate2, in float32; its engine quantises when it loads.

    Args:
        name: a model of the course.
        folder: where `NAME` shall lie.
    """
    from ctranslate2.converters import TransformersConverter
    from transformers.utils import logging

    target = folder / Path(name).name
    _make_room()
    logging.disable_progress_bar()
    try:
        TransformersConverter(str(locate(name))).convert(str(target))
    finally:
        logging.enable_progress_bar()
    _make_room()  # the engine reads the weights anew
    file = target / "config.json"
    facts = json.loads(file.read_text(encoding="utf-8"))
    # The course's tokenizer knows no "unknown" token, and the engine's reader refuses null.
    facts["unk_token"] = facts["unk_token"] or facts["eos_token"]
    file.write_text(json.dumps(facts), encoding="utf-8")
    return target


class Translated(nn.Module):
    """A converted model, asked as transformers' models are, for its quality.

    Attributes:
        engine: CTranslate2's generator.
    """

    def __init__(self, folder: Path, number_format: str, tokenizer: Any) -> None:
        """Load it.

        Args:
            folder: of `convert`.
            number_format: "float32" or "int8".
            tokenizer: the model's own.
        """
        import ctranslate2

        super().__init__()
        self.place = nn.Parameter(torch.zeros(1))  # says on which device ids are expected
        threads = torch.get_num_threads()
        self.engine = ctranslate2.Generator(
            str(folder), compute_type=number_format, inter_threads=1, intra_threads=threads
        )
        self._tokenizer = tokenizer

    def forward(self, input_ids: Tensor, **_: Any) -> SimpleNamespace:
        """Logits of shape (rows, tokens, vocabulary)."""
        import numpy as np

        found = self.engine.forward_batch(input_ids.tolist())
        return SimpleNamespace(logits=torch.from_numpy(np.array(found)))

    def write(self, ids: list[int], new_tokens: int, rows: int = 1) -> list[int]:
        """Continue a prompt greedily, in so many equal rows; the ids of the first one."""
        pieces = self._tokenizer.convert_ids_to_tokens(ids)
        found = self.engine.generate_batch(
            [pieces] * rows, max_length=new_tokens, min_length=new_tokens, sampling_topk=1,
            include_prompt_in_result=False,
        )  # fmt: skip
        return list(found[0].sequences_ids[0])

    def seconds_a_step(self, ids: list[int], new_tokens: int, rows: int = 1) -> float:
        """The time of a longer text less that of one token, by the tokens between them."""

        def seconds(length: int) -> float:
            began = time.perf_counter()
            self.write(ids, length, rows)
            return time.perf_counter() - began

        seconds(1)
        short, long = seconds(1), seconds(new_tokens)
        return max(long - short, 1e-9) / max(new_tokens - 1, 1)
