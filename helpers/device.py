"""Which processor computes, in which number format, with how many threads (lesson 00)."""

from __future__ import annotations

import os
import platform
import sys
from typing import TYPE_CHECKING, Any

from system.errors import ParameterError
from system.machine import physical_memory, processor_name, processors

if TYPE_CHECKING:
    import torch

MAX_THREADS = 4  # small models gain nothing from more, and leave room for the notebook's server
MOST_THREADS = 1024  # more than this is a mistake, and torch would try to start them
ALLOWED = "auto, cpu, cuda, cuda:N, mps, or a number: -1 for the CPU, 0, 1, … for a GPU"


def chosen_threads() -> int:
    """Threads for torch: OMP_NUM_THREADS where it can be used, else ours.

    OpenMP allows a list, for loops within loops: "4,2". Its first number is torch's.
    """
    return _asked_threads() or max(1, min(MAX_THREADS, int(processors())))


def _asked_threads() -> int | None:
    """What OMP_NUM_THREADS asks for; None where it is missing, or no number of threads."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    usable = asked.isascii() and asked.isdecimal() and 0 < int(asked) <= MOST_THREADS
    return int(asked) if usable else None


def configure_threads() -> None:
    """Choose how torch's threads wait and how many there are: before torch is imported.

    With the default active waiting, an idle thread spins and steals time from every
    other process: on two cores decoding then runs several times slower beside one busy
    process. What the user set in the environment stays, where it can be used.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if _asked_threads() is None:  # what is no number would make OpenMP take every processor
        os.environ["OMP_NUM_THREADS"] = str(chosen_threads())
    if "torch" in sys.modules:  # too late for the environment, not for the count
        sys.modules["torch"].set_num_threads(chosen_threads())


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


def get_system_info() -> dict[str, Any]:
    """The machine, so that measurements kept for later say where they come from.

    Returns:
        system, processor, cpus (that this process may use), threads (of torch), memory_mb
        and available_mb (in a container: its own), python, and of loaded packages torch and
        transformers; gpu and gpu_memory_mb where torch sees one.
    """
    memory, cpus, torch = physical_memory(), processors(), sys.modules.get("torch")
    info: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "cpus": int(cpus) if cpus.is_integer() else round(cpus, 2),
        "threads": torch.get_num_threads() if torch is not None else chosen_threads(),
        "memory_mb": round(memory.total / 1e6),
        "available_mb": round(memory.available / 1e6),
        "python": platform.python_version(),
    }
    for name in ("torch", "transformers"):
        if name in sys.modules:
            info[name] = sys.modules[name].__version__
    if torch is not None and torch.cuda.is_available():
        info["gpu"] = torch.cuda.get_device_name()
        info["gpu_memory_mb"] = round(torch.cuda.get_device_properties(0).total_memory / 1e6)
    return info
