"""Linear layers with weights packed for a CPU's matrix units. (Lesson 08.)

A matrix product of a few rows spends most of its time on bringing the weights into the order
that the processor's vector units read. oneDNN can do that once, when the model is loaded:
for 8 rows of a 16M model the products then take half the time.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


class PackedLinear(nn.Module):
    """A linear layer in inference: x of shape (…, inputs) to (…, outputs)."""

    def __init__(self, weight: Tensor, bias: Tensor | None, shared: bool = False) -> None:
        """Pack the weights.

        Args:
            weight: shape (outputs, inputs).
            bias: shape (outputs,), or None.
            shared: another layer keeps these weights: they are read as they lie, by the same
                product, which is faster than plain torch's and takes no second copy.
        """
        super().__init__()
        self.bias = bias
        plain = weight.detach().contiguous()
        self.packed = plain if shared else torch.ops.mkldnn._reorder_linear_weight(plain)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's outputs."""
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


def linear_layers(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """(parent, name, layer) of every linear layer; each may be replaced before the next comes.

    GPT-2's `Conv1D` layers are among them. Only what holds other modules is kept meanwhile, so
    that a layer that was replaced can go.
    """
    for parent in [part for part in model.modules() if next(part.children(), None) is not None]:
        for name, layer in list(parent.named_children()):
            if type(layer) in (nn.Linear, Conv1D):
                yield parent, name, layer


def rows_of(layer: nn.Module) -> Tensor:
    """A linear layer's weights, of shape (outputs, inputs): in a `Conv1D` they lie otherwise."""
    weight = layer.get_parameter("weight")
    return weight.t() if type(layer) is Conv1D else weight


def bias_of(layer: nn.Module) -> Tensor | None:
    """A linear layer's bias, of shape (outputs,), or None."""
    return cast(Tensor | None, layer.bias)


def joined(layers: Sequence[nn.Module]) -> nn.Linear:
    """One linear layer that gives what several give, one behind the other.

    Args:
        layers: of the same number of inputs; their weights leave memory if they lie in a file.
    """
    weights = [rows_of(layer).detach() for layer in layers]
    biases = [bias for layer in layers if (bias := bias_of(layer)) is not None]
    one = nn.Linear(1, 1, bias=False)
    one.weight = nn.Parameter(torch.cat(weights), requires_grad=False)
    if biases:
        one.bias = nn.Parameter(torch.cat(biases), requires_grad=False)
    for weight in weights:
        forget(weight)
    return one


def leave_file(parameters: Iterable[nn.Parameter]) -> None:
    """Copy parameters that are read from a mapped file.

    The weights of a loaded model lie in its file, mapped into memory as a whole: one that is
    still in use keeps all of it there, the weights that were packed as well.
    """
    for parameter in parameters:
        parameter.data = parameter.data.clone()


def _mapped_weights() -> Iterator[tuple[int, int]]:
    """The addresses (first, behind the last) at which files of weights are mapped (Linux)."""
    if sys.platform.startswith("linux"):
        for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
            places, _, _, _, _, *file = line.split(maxsplit=5)
            if "".join(file).endswith(".safetensors"):
                first, last = (int(place, 16) for place in places.split("-"))
                yield first, last


def _give_back(first: int, last: int) -> None:
    """Let whole pages leave this process's memory."""
    size = ctypes.c_size_t(last - first)
    ctypes.CDLL(None).madvise(ctypes.c_void_p(first), size, mmap.MADV_DONTNEED)


def forget(tensor: Tensor) -> None:
    """Give back the memory of a tensor that is read from a mapped file (Linux); the file stays.

    Read again, it comes from the file again, without what was changed since. A model whose weights
    are converted one by one would else be in memory twice before the last one is done.
    """
    begin = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if begin < end and any(first <= begin and end <= last for first, last in _mapped_weights()):
        _give_back(begin, end)


def forget_files() -> None:
    """Give back the memory of all weights that are mapped, until they are read again (Linux)."""
    for first, last in _mapped_weights():
        _give_back(first, last)


def pack_linear_layers(model: nn.Module) -> int:
    """Replace the linear layers of a model on a CPU that computes in its number format.

    That is float32, and bfloat16 where the processor has instructions for it. Other models stay
    as they are.

    An output layer that shares the embeddings' weights goes on doing so.

    Args:
        model: changed in place; it can no longer be trained or saved.

    Returns:
        How many layers were replaced.
    """
    first = next(model.parameters())
    if first.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return 0
    native = first.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if first.dtype != torch.float32 and not native:
        return 0
    count, embedding = 0, getattr(model, "get_input_embeddings", lambda: None)()
    embeddings = getattr(embedding, "weight", None)
    # By their ids: what held the weights themselves would keep them after their packing.
    packed = {id(layer.get_parameter("weight")) for _, _, layer in linear_layers(model)}
    leave_file(p for p in model.parameters() if id(p) not in packed or p is embeddings)
    for parent, name, layer in linear_layers(model):
        shared, weight = layer.weight is embeddings, layer.get_parameter("weight").detach()
        setattr(parent, name, PackedLinear(rows_of(layer), bias_of(layer), shared))
        if not shared:
            forget(weight)
        count += 1
    return count
