"""Write requirements.txt: every package of the course at one version (`make pins`).

The versions asked for stand in pyproject.toml; uv adds the versions of everything that
those need, for Python 3.11 to 3.13 on Linux, macOS and Windows.
"""

import re
import subprocess
import sys
from pathlib import Path

import startup

ROOT = Path(__file__).resolve().parent.parent
UV = "uv==0.13.9"
COMPILE = ["pip", "compile", "pyproject.toml", "--extra", "dev", "--quiet", "--no-config"]
COMPILE += ["--universal", "--fork-strategy", "fewest", "--no-header", "--no-annotate"]
COMPILE += ["--no-emit-index-url", "--no-emit-find-links"]
# PyTorch's CUDA build names these at fixed versions itself; the CPU build does without.
CUDA_ONLY = re.compile(r"(nvidia|cuda|triton)\b")
HEADER = """\
# Every package of the course at one version. Made by `make pins` from pyproject.toml.
# Linux without an NVIDIA card: `make setup` takes PyTorch's smaller CPU build first.
"""


def main() -> int:
    """Compile the pins and write requirements.txt; the exit status is uv's."""
    print(f"Working out the pins with {UV} …", flush=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", UV]
    uv = [sys.executable, "-m", "uv", *COMPILE]
    if subprocess.run(pip, cwd=ROOT).returncode != 0:
        print(f"{UV} could not be installed: see pip's message above.", file=sys.stderr)
        return 1
    compiled = subprocess.run(uv, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if compiled.returncode != 0:
        print("The versions in pyproject.toml do not fit: see uv's message.", file=sys.stderr)
        return compiled.returncode
    pins = [line for line in compiled.stdout.splitlines() if not CUDA_ONLY.match(line)]
    text = HEADER + "\n".join(pins) + "\n"
    (ROOT / "requirements.txt").write_text(text, encoding="utf-8")
    print(f"requirements.txt: {len(pins)} packages.")
    return 0


if __name__ == "__main__":
    startup.run(main)
