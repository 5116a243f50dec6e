"""One number for all weights of a model, so that no answer of other weights is taken for its own.

It is taken when the model has been loaded, before layers are packed, and from the numbers in
memory: the same for a shipped model, a folder or the hub, and another after any training.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over names, types, shapes and values of all weights, in hexadecimal."""
    import torch

    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        found.update(flat.view(torch.uint8).numpy())
    return found.hexdigest()
