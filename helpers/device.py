"""Which processor computes, in which number format, with how many threads (lesson 00)."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from helpers.errors import ParameterError

if TYPE_CHECKING:
    import torch

MAX_THREADS = 4  # small models gain nothing from more, and leave room for the notebook's server
ALLOWED = "auto, cpu, cuda, cuda:N, mps, or a number: -1 for the CPU, 0, 1, … for a GPU"


def available_cpus() -> int:
    """CPUs that this process may use (a container often has fewer than the machine)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def configure_threads() -> None:
    """Choose how torch's threads wait and how many there are: before torch is imported.

    With the default active waiting, an idle thread spins and steals time from every
    other process: on two cores decoding then runs several times slower beside one busy
    process. What the user set in the environment stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("OMP_NUM_THREADS", str(min(MAX_THREADS, available_cpus())))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if "torch" in sys.modules:  # too late for the environment, not for the count
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def resolve_device(device: str | int | None = None) -> str:
    """The torch device to use, such as "cpu" or "cuda:0".

    Args:
        device: "auto", "cpu", "cuda", "cuda:1", "mps", or -1 (CPU), 0, 1 … (that GPU);
            None reads the environment variable DEVICE, and takes "auto" if it is not set.

    Raises:
        ParameterError: not a device, or one that this machine does not have.
    """
    import torch

    asked = os.environ.get("DEVICE", "auto") if device is None else device
    name = str(asked).strip().lower()
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    mps = torch.backends.mps.is_available()
    if name in ("", "auto"):
        return "cuda:0" if gpus else "mps" if mps else "cpu"
    if name in ("cpu", "-1"):
        return "cpu"
    if name == "mps":
        if mps:
            return "mps"
        raise ParameterError("device", asked, "cpu here: this machine has no Apple GPU")
    index = name.removeprefix("cuda:") if name != "cuda" else "0"
    if isinstance(asked, bool) or not index.isdecimal():
        raise ParameterError("device", asked, ALLOWED)
    if int(index) < gpus:
        return f"cuda:{int(index)}"
    found = f"cuda:0 to cuda:{gpus - 1}" if gpus else "cpu (torch sees no NVIDIA GPU)"
    raise ParameterError("device", asked, f"one that this machine has: {found}")


def default_dtype(device: str) -> torch.dtype:
    """float32 on CPU and Apple GPUs; bfloat16 on NVIDIA GPUs that have it, else float16."""
    import torch

    if not device.startswith("cuda"):
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def device_label(device: str) -> str:
    """The name that people read: "CPU", "GPU:0"."""
    return "CPU" if device == "cpu" else f"GPU:{device.partition(':')[2] or 0}"
