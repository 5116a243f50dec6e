"""Is this machine ready for the course? A list of ✓ and ✗, each ✗ with what to do.

    python -m helpers.check        or `make check`; exit status 1 on any ✗

Lesson 00 shows the same list as a table.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.models import cards, models_folder
from system import startup
from system.environment import ROOT, default_model
from system.errors import see
from system.markup import safe

if TYPE_CHECKING:
    from IPython.display import HTML

LEAST_MEMORY_GB, COMFORTABLE_MEMORY_GB = 1.0, 2.0
LEAST_DISK_GB = 1.0
PROMPT = "Machine learning is"
SET_UP = "make setup"
RESTORE = "git checkout -- models"


@dataclass(frozen=True)
class Check:
    """One line of the list.

    Attributes:
        name: what was looked at.
        ok: whether the course can work with it.
        found: what is there.
        advice: what to do; also where something works but could be better.
    """

    name: str
    ok: bool
    found: str
    advice: str = ""


def check_python() -> Check:
    """Python 3.11 to 3.13."""
    ok = (3, 11) <= sys.version_info[:2] <= (3, 13)
    advice = "" if ok else "install Python 3.11, 3.12 or 3.13, then PYTHON=python3.12 make setup"
    return Check("Python", ok, f"{platform.python_version()} on {platform.system()}", advice)


def pinned(root: Path = ROOT) -> list[str]:
    """What lessons ask for, as `name==version`: of this repository, else of this installation.

    Args:
        root: the folder with pyproject.toml; where there is none, the course was installed as a
            package, and then its metadata says what it needs, without Jupyter.
    """
    import tomllib

    if (root / "pyproject.toml").exists():
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return [*project["dependencies"], *project["optional-dependencies"]["lab"]]
    return [line for line in requires("llm-basics") or [] if "extra ==" not in line]


def check_packages(root: Path = ROOT) -> Check:
    """Every package that the course asks for: its pinned version, and whether its files are there.

    Args:
        root: the folder with the pins.
    """
    from system.installed import damaged

    pins, wrong, shown = pinned(root), [], []
    for pin in pins:
        name, _, wanted = pin.partition("==")
        try:
            found = version(name)
        except PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        if found.split("+")[0] != wanted:
            wrong.append(f"{name} is {found}, not {wanted}")
        if name in ("torch", "transformers"):
            shown.append(f"{name} {found}")
    locked = root / "requirements.txt"  # with what those need in turn
    lines = locked.read_text(encoding="utf-8").splitlines() if locked.exists() else pins
    names = {line.partition("==")[0] for line in lines if "==" in line}
    for site in dict.fromkeys(map(sysconfig.get_path, ("purelib", "platlib"))):
        for info, problem in damaged(Path(site), names).items():
            wrong.append(f"{info.name.partition('-')[0]} {problem}")
    if wrong:
        more = [f"and {len(wrong) - 5} more"] if len(wrong) > 5 else []
        return Check("Packages", False, "; ".join([*wrong[:5], *more]), SET_UP)
    return Check("Packages", True, f"all {len(pins)} as pinned, {', '.join(shown)}")


def check_device() -> Check:
    """The device that models run on: as DEVICE asks, else the best one."""
    try:
        import torch

        from helpers.device import resolve_device

        device = resolve_device()
    except (ImportError, ValueError) as error:
        advice = "set DEVICE=auto" if isinstance(error, ValueError) else SET_UP
        return Check("Device", False, str(error), advice)
    if device.startswith("cuda"):
        card = torch.cuda.get_device_properties(device)
        free, total = (amount / 2**30 for amount in torch.cuda.mem_get_info(device))
        found = f"{device}: {card.name}, CUDA {torch.version.cuda}, {free:.1f} of {total:.1f} GiB"
        return Check("Device", True, f"{found} free")
    advice = ""
    if torch.version.cuda is None and shutil.which("nvidia-smi"):
        advice = "to use the NVIDIA card, too: TORCH=cuda make setup"
    return Check("Device", True, f"{device}, {torch.get_num_threads()} threads", advice)


def check_memory() -> Check:
    """RAM that is free for a lesson (about 1 GB)."""
    from system.machine import physical_memory

    memory = physical_memory()
    free, total = memory.available / 1e9, memory.total / 1e9
    advice = "" if free >= COMFORTABLE_MEMORY_GB else "close other notebooks and programs"
    found = f"{free:.1f} of {total:.1f} GB free"
    return Check("Memory", free >= LEAST_MEMORY_GB, found, advice)


def check_disk() -> Check:
    """Disk space for reports and for models from the hub."""
    free = shutil.disk_usage(ROOT).free / 1e9
    ok = free >= LEAST_DISK_GB
    advice = "" if ok else f"free {LEAST_DISK_GB:.0f} GB on the disk of this folder"
    return Check("Disk", ok, f"{free:.0f} GB free", advice)


def check_models(folder: Path | None = None) -> Check:
    """The shipped models, against the checksums beside them.

    Args:
        folder: where they lie; None takes the repository's.
    """
    folder = folder or models_folder()
    try:
        lines = (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    except OSError:
        return Check("Models", False, f"no SHA256SUMS in {folder.name}/", RESTORE)
    wrong, size = [], 0
    names: set[str] = set()
    for line in filter(None, lines):
        digest, _, name = line.partition("  ")
        file = folder / name
        if not file.is_file():
            wrong.append(f"{name} is missing")
        elif hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            wrong.append(f"{name} is damaged or changed")
        else:
            size += file.stat().st_size
            names.update(file.relative_to(folder).parts[:-1])
    if wrong:
        return Check("Models", False, "; ".join(wrong), RESTORE)
    return Check("Models", True, f"{', '.join(sorted(names))} intact, {size / 1e6:.0f} MB")


def check_optional_models() -> Check:
    """The models of the package index: the lessons run without them, and show less."""
    wanted = [card for card in cards().values() if card.where == "package index"]
    there = [f"{card.name}, {card.disk_mb:.0f} MB" for card in wanted if card.here]
    missing = ", ".join(card.name for card in wanted if not card.here)
    advice = "the lessons leave out what needs it; to get it: make model" if missing else ""
    return Check("Instruct", True, ", ".join(there) or f"{missing} is not here", advice)


def check_generation(folder: Path | None = None) -> Check:
    """One real generation with the default model.

    Args:
        folder: where the shipped models lie; None takes the repository's.
    """
    name = default_model()
    if folder is not None and (folder / name).is_dir():
        name = str(folder / name)
    try:
        import helpers

        result = helpers.load(name).generate(PROMPT, max_new_tokens=16, seed=0, temperature=0.7)
    except Exception as error:  # whatever is broken, the list goes on and says so
        found = f"{name}: {type(error).__name__}: {str(error).splitlines()[0]}"
        return Check("Generation", False, found, f"fix the lines above, or {RESTORE}")
    speed = f"{result.new_tokens} tokens, {result.tokens_per_second:.0f} tokens/s"
    return Check("Generation", True, f"“{' '.join(result.text.split())}” ({speed})")


def run_checks(folder: Path | None = None) -> Iterator[Check]:
    """Each check as soon as it is done, in the order in which to put them right."""
    yield check_python()
    yield check_packages()
    yield check_device()
    yield check_memory()
    yield check_disk()
    yield check_models(folder)
    yield check_optional_models()
    yield check_generation(folder)


def check_installation(folder: Path | None = None) -> list[Check]:
    """All checks (lesson 00).

    Args:
        folder: where the shipped models lie; None takes the repository's.
    """
    return list(run_checks(folder))


def as_text(check: Check) -> str:
    """One check for a terminal: a line, and one more for its advice."""
    line = f"{'✓' if check.ok else '✗'} {check.name:<11} {check.found}"
    return f"{line}\n{'':<14}→ {check.advice}" if check.advice else line


def as_html(checks: list[Check]) -> str:
    """The list as an HTML table for a notebook."""
    left = '<{0} style="text-align:left">{1}</{0}>'
    head = "".join(left.format("th", title) for title in ("", "check", "found", "what to do"))
    rows = []
    for check in checks:
        cells = ("✓" if check.ok else "✗", check.name, check.found, check.advice)
        columns = "".join(left.format("td", safe(c)) for c in cells)
        rows.append(f"<tr>{columns}</tr>")
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return table if all(c.ok for c in checks) else f"{table}<p>{see('check')}</p>"


def show(checks: list[Check]) -> HTML:
    """The table, for the last line of a notebook cell."""
    from IPython.display import HTML

    return HTML(as_html(checks))


def main() -> int:
    """Print the list; exit status 1 when there is a ✗ in it."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers.check", description="Check that this machine is ready."
    )
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="another models folder")
    folder = parser.parse_args().models
    ready = True
    for check in run_checks(folder):
        print(as_text(check), flush=True)
        ready &= check.ok
    if not ready:
        print(f"\n{see('check')}")
    return 0 if ready else 1


if __name__ == "__main__":
    startup.run(main)
