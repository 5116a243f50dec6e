"""Linear layers with weights packed for a CPU's matrix units. (Lesson 08.)

A matrix product of a few rows spends most of its time on bringing the weights into the order
that the processor's vector units read. oneDNN can do that once, when the model is loaded:
for 8 rows of a 16M model the products then take half the time.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


class PackedLinear(nn.Module):
    """A linear layer in inference: x of shape (…, inputs) to (…, outputs)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Pack the weights.

        Args:
            weight: shape (outputs, inputs).
            bias: shape (outputs,), or None.
        """
        super().__init__()
        self.bias = bias
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """The layer's outputs."""
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


def pack_linear_layers(model: nn.Module) -> int:
    """Replace the linear layers of a float32 model on a CPU; elsewhere, change nothing.

    Embeddings keep their own copy where the output layer shares their weights.

    Args:
        model: changed in place; it can no longer be trained or saved.

    Returns:
        How many layers were replaced.
    """
    first = next(model.parameters())
    usable = first.device.type == "cpu" and first.dtype == torch.float32
    if not (usable and torch.backends.mkldnn.is_available()):
        return 0
    count = 0
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear:
                setattr(parent, name, PackedLinear(layer.weight, layer.bias))
            elif type(layer) is Conv1D:  # GPT-2's: the weights lie the other way round
                weight, bias = cast(Tensor, layer.weight), cast(Tensor, layer.bias)
                setattr(parent, name, PackedLinear(weight.t(), bias))
            else:
                continue
            count += 1
    return count
