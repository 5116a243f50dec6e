"""Write the requirements files: every package of the course at one version (`make pins`).

    requirements.txt       what learners install: the course's packages, its extras `lab` and `fast`
    requirements-dev.txt   what developers need on top of it: `dev`, `ray`, `site`, `tracing`

The versions asked for stand in pyproject.toml; uv adds the versions of everything that
those need, for Python 3.11 to 3.13 on Linux, macOS and Windows. Versions of today stay where
they fit; `make pins ARGS=--upgrade` takes the newest.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import startup

ROOT = Path(__file__).resolve().parent.parent
UV = "uv==0.13.9"
COMPILE = ["pip", "compile", "pyproject.toml", "--quiet", "--no-config", "--extra", "lab"]
COMPILE += ["--extra", "fast", "--universal", "--fork-strategy", "fewest"]
COMPILE += ["--no-header", "--no-annotate"]
COMPILE += ["--no-emit-index-url", "--no-emit-find-links"]
DEVELOPERS = ["--extra", "dev", "--extra", "ray", "--extra", "site", "--extra", "tracing"]
# PyTorch's CUDA build names these at fixed versions itself; the CPU build does without.
CUDA_ONLY = re.compile(r"(nvidia|cuda|triton)\b")
HEADER = """\
# Every package that learners need, at one version. Made by `make pins` from pyproject.toml.
# Linux without an NVIDIA card: `make setup` takes PyTorch's smaller CPU build first.
"""
HEADER_DEV = """\
# What only developers need, at one version. Made by `make pins` from pyproject.toml.
-r requirements.txt
"""


def pins_in(file: Path) -> list[str]:
    """The lines of a requirements file that pin a package; none if it is not there."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [line for line in lines if "==" in line and not CUDA_ONLY.match(line)]


def compiled(preferred: list[str], *options: str) -> list[str]:
    """The pins that uv works out, one line each; `preferred` ones stay where they fit.

    Raises:
        subprocess.CalledProcessError: the versions do not fit together, as uv then explains.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "pins.txt")  # what lies there already, uv prefers
        output.write_text("\n".join(preferred), encoding="utf-8")
        uv = [sys.executable, "-m", "uv", *COMPILE, *options, "--output-file", str(output)]
        subprocess.run(uv, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        return pins_in(output)


def main() -> int:
    """Compile the pins and write both files; the exit status is uv's."""
    print(f"Working out the pins with {UV} …", flush=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", UV]
    if subprocess.run(pip, cwd=ROOT).returncode != 0:
        print(f"{UV} could not be installed: see pip's message above.", file=sys.stderr)
        return 1
    files = [ROOT / "requirements.txt", ROOT / "requirements-dev.txt"]
    today = [pin for file in files for pin in pins_in(file)]
    try:
        # All together first; the learners' part of it then has the same versions.
        everything = compiled(today, *DEVELOPERS, *sys.argv[1:])
        learners = compiled(everything)
    except subprocess.CalledProcessError as error:
        print("The versions in pyproject.toml do not fit: see uv's message.", file=sys.stderr)
        return int(error.returncode)
    developers = [pin for pin in everything if pin not in learners]
    for file, header, pins in zip(files, (HEADER, HEADER_DEV), (learners, developers), strict=True):
        file.write_text(header + "\n".join(pins) + "\n", encoding="utf-8")
        print(f"{file.name}: {len(pins)} packages.")
    return 0


if __name__ == "__main__":
    startup.run(main)
