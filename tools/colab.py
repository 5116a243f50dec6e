"""On Google Colab, install what a lesson needs and Colab lacks: every lesson's first cell runs it.

What Colab has stays as it is, above all its PyTorch with CUDA. Only packages that are missing
are installed, and those that are too old for this course's code, at their pinned versions.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The oldest versions that the code works with; of the others any will do.
OLDEST = {"torch": (2, 4), "transformers": (5, 0)}
# Parts of JupyterLab: Colab has a page of its own, and the course is not installed there.
NOT_HERE = {
    "jupyter-resource-usage",
    "jupyter-server-proxy",
    "jupyterlab",
    "jupyterlab-execute-time",
    "setuptools",
}


def present(package: str) -> str:
    """The version that is installed, or an empty string."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def sort(pins: list[str]) -> tuple[list[str], list[str]]:
    """What is to be installed, as pinned, and what stays, as "name==version"."""
    wanted, stays = [], []
    for pin in pins:
        name = pin.partition("==")[0]
        found = present(name)
        numbers = tuple(int(n) for n in re.findall(r"\d+", found)[:2])
        if found and numbers >= OLDEST.get(name, ()):
            stays.append(f"{name}=={found}")
        elif name not in NOT_HERE:
            wanted.append(pin)
    return wanted, stays


def install(wanted: list[str], stays: list[str]) -> str:
    """Let pip install these and leave those alone: its last complaint, or an empty string."""
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder, "stays.txt")
        constraints.write_text("\n".join(stays), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet"]
        command += ["--disable-pip-version-check", "--constraint", str(constraints), *wanted]
        ran = subprocess.run(command, capture_output=True, text=True)
    importlib.invalidate_caches()
    if ran.returncode == 0:
        return ""
    return (ran.stderr.strip().splitlines() or [f"pip ended with {ran.returncode}"])[-1]


def main() -> int:
    """Install what is missing, make `import helpers` work, and say in one line what was done."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]  # for the processes that lessons start
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, paths)))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    pins = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["lab"]
    wanted, stays = sort(pins)
    names = ", ".join(pin.replace("==", " ") for pin in wanted) or "nothing"
    if wanted and (complaint := install(wanted, stays)):
        print(f"The course needs {names}, which could not be installed: {complaint}")
        return 1
    if os.environ.get("SMOLLM2", "").lower() != "no":  # lessons run without it
        subprocess.run([sys.executable, str(ROOT / "tools/fetch_model.py")], stdout=sys.stderr)
    print(f"The course is in {ROOT.name}/; newly installed: {names}.")
    if old := [p.partition("==")[0] for p in wanted if p.partition("==")[0] in sys.modules]:
        print(f"An older {', '.join(old)} was in use: choose Runtime > Restart session, run again.")
    return 0


if __name__ == "__main__":
    if status := main():
        sys.exit(status)
