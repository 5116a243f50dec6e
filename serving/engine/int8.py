"""Weights of one byte each, for CPUs: linear layers and the token embeddings. (Lesson 08.)

A step with one row is as fast as the weights come from memory, and int8 is a quarter of
float32. Each row of a weight matrix has a scale of its own, and so has each token's vector
when it enters a layer (dynamic quantisation): integers are multiplied, and the sums scaled
back. Activations have 7 bits: two products of 8 bits overflow the 16 that processors without
VNNI add them up in.

torch's own quantised modules scale all rows of a step together, so what a text reads would
change with its company in the batch. Here a row is brought to -1 … 1 first, and the scale of
the operator is fixed: the integers of a row are the same in any batch.

`python -m benchmarks.int8` measures what it gains and costs.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from serving.engine.packed import bias_of, forget, leave_file, linear_layers, rows_of
from system.errors import ParameterError, see

ENGINE = "fbgemm"  # torch's kernels for x86 processors
LEVELS = 63  # integers on each side of 0 for activations
TINY = 1e-30  # in place of the largest number of a row of zeros


def check_int8(device: str) -> None:
    """Refuse what cannot compute in int8 here, before a model is loaded.

    Raises:
        ParameterError: not a CPU, or none with the instructions for it.
    """
    if device == "cpu" and ENGINE in torch.backends.quantized.supported_engines:
        return
    here = "this processor" if device == "cpu" else device
    allowed = f"auto, float32, bfloat16 or float16 on {here}: int8 is for x86 CPUs"
    raise ParameterError("dtype", "int8", f"{allowed}. {see('int8')}")


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of a matrix as integers: (int8 of the same shape, scale of each row)."""
    scale = (weight.abs().amax(1) / 127).clamp(min=TINY)
    return (weight / scale[:, None]).round().to(torch.int8), scale


class Int8Linear(nn.Module):
    """A linear layer in inference: x of shape (…, inputs) to (…, outputs)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Quantise and pack the weights.

        Args:
            weight: shape (outputs, inputs), float32.
            bias: shape (outputs,), or None.
        """
        super().__init__()
        self.bias = bias
        integers, scale = quantize(weight.detach())
        zeros = torch.zeros(len(scale), dtype=torch.long)
        with warnings.catch_warnings():  # deprecated, without a substitute in this version
            warnings.filterwarnings("ignore", message="torch.quantize_per_tensor")
            matrix = torch._make_per_channel_quantized_tensor(integers, scale.double(), zeros, 0)
        before = torch.backends.quantized.engine
        torch.backends.quantized.engine = ENGINE
        try:
            self.packed = torch.ops.quantized.linear_prepack(matrix, None)
        finally:
            torch.backends.quantized.engine = before

    def forward(self, x: Tensor) -> Tensor:
        """The layer's outputs."""
        largest = torch.linalg.vector_norm(x, torch.inf, -1, keepdim=True).clamp_(min=TINY)
        product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        y = product(x / largest, 1 / LEVELS, LEVELS + 1, self.packed).mul_(largest)
        return y if self.bias is None else y.add_(self.bias)


class Int8Embedding(nn.Module):
    """Token embeddings of which only the rows that are looked up become float32."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = weight.shape
        self.integers, self.scale = quantize(weight.detach())

    def forward(self, ids: Tensor) -> Tensor:
        """Ids of shape (…) to vectors of shape (…, size)."""
        return self.integers[ids].float().mul_(self.scale[ids].unsqueeze(-1))


def quantize_model(model: PreTrainedModel) -> int:
    """Replace the linear layers and the token embeddings of a float32 model on a CPU.

    Their float32 weights are freed as it goes, those that two layers share as well.

    Args:
        model: changed in place; it can no longer be trained or saved.

    Returns:
        How many linear layers were replaced.
    """
    count = 0
    embedding = model.get_input_embeddings()
    for parent, name, layer in linear_layers(model):
        setattr(parent, name, Int8Linear(rows_of(layer), bias_of(layer)))
        forget(layer.get_parameter("weight").detach())
        count += 1
    if type(embedding) is nn.Embedding:
        model.set_input_embeddings(Int8Embedding(embedding.weight))
        forget(embedding.weight.detach())
    leave_file(model.parameters())
    return count
