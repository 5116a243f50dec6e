"""Plant small faults, one at a time, and count those that the tests notice (`make mutants`).

    python tools/mutants.py             # every group of [tool.course.mutants] in pyproject.toml
    python tools/mutants.py settings    # those named

mutmut plants the faults, and runs the fast tests of a group that reach the faulty function, on
one core at the lowest priority. A run may be stopped and goes on where it was, with those that
survived; what it found stands in build/mutants. Delete a group's folder there to begin anew.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import startup

from system.environment import PACKAGES

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "mutants"
# One process imports everything once and is forked for each fault; torch stays on one thread,
# since others would not survive the fork.
SETUP = """[mutmut]
source_paths = {packages}
only_mutate = {modules}
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args =
    -p
    no:cacheprovider
    -p
    pytest_timeout
    -p
    own_lock
    -m
    not slow and not soak and not browser and not plain
process_isolation = fork
use_git_change_detection = false
timeout_constant = 4
"""
# Bars draw under a lock that forks share: one that is killed meanwhile would keep it for ever, and
# all after it would look endless.
OWN_LOCK = "import threading\nfrom tqdm import tqdm\ntqdm.set_lock(threading.RLock())\n"
# How pytest ends when a test noticed the fault, and when it ran over mutmut's generous limit.
FAILED, ENDLESS = (1, 3), (-24, 24, 36, 152, 255)
ENOUGH = 85  # per cent of a module's faults that tests must notice
# Each fault starts pytest anew, so it loads no plugin that these tests do without.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
ENVIRONMENT |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
MUTMUT = [sys.executable, "-m", "mutmut"]


def groups() -> dict[str, dict[str, list[str]]]:
    """Name of a group → its `modules` and its fast `tests`, as pyproject.toml has them."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return dict(content["tool"]["course"]["mutants"])


def prepare(name: str, group: dict[str, list[str]]) -> Path:
    """The folder in which a group is tried: links to the course, and mutmut's settings."""
    folder = FOLDER / name
    (folder / "mutants").mkdir(parents=True, exist_ok=True)
    for path in ROOT.iterdir():
        # mutmut copies packages and tests into `mutants`, where tests look for all the rest.
        copied = path.name in (*PACKAGES, "tests", "pyproject.toml")
        place = folder if copied else folder / "mutants"
        if not path.name.startswith(".") and path != FOLDER.parent:
            link = place / path.name
            link.unlink(missing_ok=True)
            link.symlink_to(path)
    lists = {"packages": PACKAGES, **group}
    values = {key: "".join(f"\n    {one}" for one in value) for key, value in lists.items()}
    (folder / "mutants" / "own_lock.py").write_text(OWN_LOCK, encoding="utf-8")
    (folder / "setup.cfg").write_text(SETUP.format(**values), encoding="utf-8")
    return folder


def results(folder: Path, module: str, again: bool = False) -> dict[str, int | None]:
    """Name of a fault → how its tests ended; None if it was not tried yet.

    Args:
        folder: of the group.
        module: one of the group.
        again: have mutmut try those anew that no test failed for: the tests may be better now.
    """
    file = folder / "mutants" / f"{module}.meta"
    if not file.exists():
        return {}
    content = json.loads(file.read_text())
    ends: dict[str, int | None] = content["exit_code_by_key"]
    if again:
        ends |= {fault: None for fault, end in ends.items() if end not in FAILED}
        file.write_text(json.dumps(content))
    return ends


def report(folder: Path, module: str) -> tuple[str, bool]:
    """Print what survived; the module's line of the table, and whether it is good enough."""
    ends = results(folder, module)
    tried = {fault: end for fault, end in ends.items() if end is not None}
    left = sorted(fault for fault, end in tried.items() if end not in FAILED + ENDLESS)
    for fault in left:
        subprocess.run([*MUTMUT, "show", fault], cwd=folder)
    killed, endless = len(tried) - len(left), sum(end in ENDLESS for end in tried.values())
    share = 100 * killed / len(tried) if tried else 0.0
    line = f"{module:<36}{len(tried):>8}{killed:>8}{endless:>9}{share:>7.1f}"
    whole = bool(tried) and len(tried) == len(ends)
    return line + ("" if whole else "  not finished"), whole and share >= ENOUGH


def main() -> int:
    """Try the groups asked for, then print what survived and the table; 1 if that is too much."""
    known = groups()
    asked = sys.argv[1:] or list(known)
    if unknown := [name for name in asked if name not in known]:
        print(f"No group {', '.join(unknown)}: there are {', '.join(known)}.", file=sys.stderr)
        return 2
    os.nice(19)
    rows = []
    for name in asked:
        folder = prepare(name, known[name])
        for module in known[name]["modules"]:
            results(folder, module, again=True)
        # Which tests reach what: a test may do more than at the last run.
        (folder / "mutants" / "mutmut-stats.json").unlink(missing_ok=True)
        run = [*MUTMUT, "run", "--max-children", "1"]
        subprocess.run(run, cwd=folder, env=os.environ | ENVIRONMENT)
        rows += [report(folder, module) for module in known[name]["modules"]]
    print(f"{'module':<36}{'mutants':>8}{'killed':>8}{'endless':>9}{'%':>7}")
    print("\n".join(line for line, _ in rows))
    return 0 if all(good for _, good in rows) else 1


if __name__ == "__main__":
    startup.run(main)
