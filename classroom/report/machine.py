"""The machine and the versions that a report was made with."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version

from system.environment import ROOT, default_model
from system.machine import physical_memory, processor_name, processors

PACKAGES = (
    "llm-basics", "torch", "transformers", "tokenizers", "numpy", "ipykernel", "nbclient",
    "papermill",
)  # fmt: skip


def machine() -> dict[str, str]:
    """What a reader needs to judge the numbers, in words."""
    return {
        "System": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "Processor": f"{processor_name()}, {processors():.3g} CPUs for this report",
        "Memory": f"{physical_memory().total / 1e9:.1f} GB",
        "Graphics card": _output(
            "nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"
        )
        or "no NVIDIA card found",
        "Device asked for": os.environ.get("DEVICE") or "auto",
        "Default model": default_model(),
    }


def versions() -> dict[str, str]:
    """Python, the packages that matter, and the course's commit where git knows it."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    commit = _output("git", "-C", str(ROOT), "describe", "--always", "--dirty")
    return {**found, "commit": commit} if commit else found


def _output(command: str, *arguments: str) -> str:
    """What a command prints, its lines joined; empty where it is missing or fails."""
    path = shutil.which(command)
    if not path:
        return ""
    try:
        done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "; ".join(done.stdout.strip().splitlines()) if done.returncode == 0 else ""
