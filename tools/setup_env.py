"""Set up the course's environment in .venv: `make setup`, or `python tools/setup_env.py`.

Needs nothing but Python. Run again, it ends at once when nothing has changed, and goes
on where it stopped when it was interrupted. Choices, as environment variables:

    PYTHON=python3.12   the Python to use (3.11 to 3.13)
    TORCH=cpu|cuda      PyTorch's build; by default cuda where an NVIDIA card answers
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import startup

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "course-stamp"
REQUIREMENTS = ROOT / "requirements.txt"

OLDEST, NEWEST = (3, 11), (3, 13)
DISK_GB = {"cpu": 4, "cuda": 10}
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
UNREACHABLE = re.compile(
    r"connection|retrying|timed? ?out|resolution|proxy|ssl|no matching distribution|\b50[234]\b",
    re.IGNORECASE,
)


class SetupError(Exception):
    """What stopped the set-up, in one line that says what to do."""


def python_version(python: str) -> tuple[int, int] | None:
    """(major, minor) of a Python by its path or name; None where there is none."""
    ask = "import sys; print('%d %d' % sys.version_info[:2])"
    try:
        answer = subprocess.run([python, "-c", ask], stdout=subprocess.PIPE, timeout=60)
        major, minor = answer.stdout.split()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return int(major), int(minor)


def find_python() -> str:
    """A Python that the course supports: $PYTHON, else this one, else one on the path."""
    chosen = os.environ.get("PYTHON", "")
    wanted = f"the course needs Python {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    if chosen:
        version = python_version(chosen)
        if version is None:
            raise SetupError(f"PYTHON={chosen} does not run: {wanted}; give its path.")
        if not OLDEST <= version <= NEWEST:
            found = f"PYTHON={chosen} is Python {version[0]}.{version[1]}"
            raise SetupError(f"{found}: {wanted}; choose another, as in PYTHON=python3.12.")
        return chosen
    names = [f"python3.{minor}" for minor in range(NEWEST[1], OLDEST[1] - 1, -1)]
    for python in [sys.executable, *filter(None, map(shutil.which, names))]:
        if OLDEST <= (python_version(python) or (0, 0)) <= NEWEST:
            return python
    here = f"this is {sys.version_info[0]}.{sys.version_info[1]}"
    raise SetupError(f"{wanted}, {here}: install one from python.org, or name it in PYTHON=….")


def choose_torch() -> str:
    """`cuda` where an NVIDIA card answers, else `cpu`; TORCH decides otherwise."""
    chosen = os.environ.get("TORCH", "")
    if chosen not in ("", "cpu", "cuda"):
        raise SetupError(f"TORCH={chosen} is unknown: choose TORCH=cpu or TORCH=cuda.")
    if chosen or not shutil.which("nvidia-smi"):
        return chosen or "cpu"
    card = subprocess.run(["nvidia-smi", "-L"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return "cuda" if card.returncode == 0 and b"GPU" in card.stdout else "cpu"


def fingerprint(torch: str) -> str:
    """A hash of all that decides what is installed."""
    parts = [REQUIREMENTS.read_bytes(), (ROOT / "pyproject.toml").read_bytes()]
    parts += [torch.encode(), str(ROOT).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def check_disk(torch: str) -> None:
    """Stop early where the packages would not fit."""
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < DISK_GB[torch]:
        need = f"{DISK_GB[torch]} GB free for the packages"
        raise SetupError(f"{ROOT} has {free:.1f} GB free, it takes {need}: make room first.")


def fits(python: str) -> bool:
    """Whether .venv has a supported Python, and the one asked for in $PYTHON."""
    there = python_version(str(VENV_PYTHON))
    if there is None or not OLDEST <= there <= NEWEST:
        return False
    return not os.environ.get("PYTHON") or there == python_version(python)


def make_venv(python: str) -> None:
    """Create .venv, or keep the one that works."""
    has_pip = [str(VENV_PYTHON), "-m", "pip", "--version"]
    if fits(python) and subprocess.run(has_pip, capture_output=True).returncode == 0:
        return
    create = [python, "-m", "venv", "--clear", str(VENV)]
    if subprocess.run(create, stdout=subprocess.DEVNULL).returncode != 0:
        hint = "on Debian and Ubuntu: apt install python3-venv"
        raise SetupError(f"{python} could not make {VENV} ({hint}; elsewhere: reinstall Python).")


def installed(package: str) -> str:
    """The version of a package in .venv, or an empty string."""
    ask = f"from importlib.metadata import version; print(version('{package}'))"
    answer = subprocess.run([str(VENV_PYTHON), "-c", ask], capture_output=True, text=True)
    return answer.stdout.strip()


def show(line: str) -> None:
    """One progress line: rewritten in place on a terminal, printed elsewhere."""
    print(f"\r\033[K      {line}" if sys.stdout.isatty() else f"      {line}", end="", flush=True)
    if not sys.stdout.isatty():
        print(flush=True)


# Not searched deeper: while pip replaces packages, folders vanish under the search.
INSTALLED = ("lib/python*/site-packages/*.dist-info", "Lib/site-packages/*.dist-info")


def follow(process: subprocess.Popen[str], total: int) -> None:
    """Show pip's progress: what it fetches, then how many packages lie in .venv."""
    terminal, fetched = sys.stdout.isatty(), 0
    assert process.stdout is not None
    for line in process.stdout:
        word, _, rest = line.partition(" ")
        total -= word == "Ignoring"  # pinned for other systems only
        if word in ("Collecting", "Processing"):
            fetched += 1
            if terminal or fetched % 25 == 0:
                file = rest.split()[0].split("/")[-1]
                show(f"{fetched} of {total} fetched: {'-'.join(file.split('-')[:2])}")
        if line.startswith("Installing collected"):
            break
    last = 0
    while process.poll() is None:
        present = sum(len(list(VENV.glob(pattern))) for pattern in INSTALLED)
        if present - last >= (1 if terminal else 25):
            last = present
            show(f"{min(present, total)} of {total} unpacked")
        time.sleep(0.5)
    if terminal:
        print("\r\033[K", end="", flush=True)


def pip(*arguments: str, total: int = 0) -> str:
    """Run `pip install` in .venv: its last complaints, or an empty string when it worked.

    With `total` packages expected, one progress line is shown in place of pip's many.
    """
    command = [str(VENV_PYTHON), "-m", "pip", "install", "--disable-pip-version-check"]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
        out = subprocess.PIPE if total else None
        process = subprocess.Popen(
            [*command, *arguments], cwd=ROOT, stdout=out, stderr=complaints, text=True
        )
        if total:
            follow(process, total)
        if process.wait() == 0:
            return ""
        complaints.seek(0)
        return complaints.read().strip() or f"pip ended with status {process.returncode}"


def explain(complaints: str, what: str, index: str) -> SetupError:
    """Pip's complaints as one line: the index cannot be reached, or its last error."""
    again = "then run the same command again: it goes on where it stopped"
    if UNREACHABLE.search(complaints):
        advice = "check the network, or name a mirror in PIP_INDEX_URL"
        return SetupError(f"{what} could not be fetched from {index}: {advice}; {again}.")
    last = complaints.splitlines()[-1]
    return SetupError(f"{what} could not be installed ({last}); mend that, {again}.")


def package_index() -> str:
    """The package index that pip asks, without a name or password in it."""
    ask = [str(VENV_PYTHON), "-m", "pip", "config", "get", "global.index-url"]
    configured = subprocess.run(ask, capture_output=True, text=True).stdout.strip()
    index = os.environ.get("PIP_INDEX_URL") or configured or "https://pypi.org/simple"
    return re.sub(r"//[^/@]*@", "//", index)


def install_torch(torch: str) -> None:
    """Install PyTorch at its pinned version, without CUDA libraries where none are of use."""
    pin = next(p for p in REQUIREMENTS.read_text("utf-8").split() if p.startswith("torch=="))
    present = installed("torch")
    if present.split("+")[0] == pin[7:] and not (torch == "cuda" and present.endswith("+cpu")):
        return
    if torch == "cpu" and sys.platform.startswith("linux"):
        if not pip("--quiet", "--no-index", "--no-deps", pin):  # a wheel at hand
            return
        wait = ("--timeout", "15", "--retries", "1")
        complaints = pip("--no-deps", "--index-url", CPU_INDEX, *wait, pin)
        if complaints:
            failure = explain(complaints, "PyTorch's CPU build", CPU_INDEX)
            raise SetupError(f"{failure} Or take PyPI's far larger CUDA build: TORCH=cuda.")
        return
    force = ("--force-reinstall",) if present else ()
    complaints = pip(*force, pin)
    if complaints:
        raise explain(complaints, "PyTorch", package_index())


def install_rest() -> None:
    """Install every other pinned package."""
    pins = [p for p in REQUIREMENTS.read_text("utf-8").splitlines() if "==" in p]
    complaints = pip("--retries", "2", "-r", str(REQUIREMENTS), total=len(pins))
    if complaints:
        raise explain(complaints, "The packages", package_index())


def install_course() -> None:
    """Make `import helpers` work from everywhere, following the files in this folder."""
    options = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation")
    complaints = pip(*options, "--editable", str(ROOT))
    if complaints:
        raise explain(complaints, "The course's own package", "this folder")


def set_up(quiet: bool) -> None:
    """Bring .venv up to date with the pins."""
    torch = choose_torch()
    mark = fingerprint(torch)
    ready = STAMP.exists() and STAMP.read_text() == mark and VENV_PYTHON.exists()
    if ready and (not os.environ.get("PYTHON") or fits(find_python())):
        if not quiet:
            print("The environment in .venv is up to date.")
        return
    began = time.perf_counter()
    python = find_python()
    check_disk(torch)
    STAMP.unlink(missing_ok=True)
    print(f"[1/4] Environment in .venv, from {python}", flush=True)
    make_venv(python)
    print(f"[2/4] PyTorch ({torch})", flush=True)
    install_torch(torch)
    print("[3/4] The other packages", flush=True)
    install_rest()
    print("[4/4] The course itself", flush=True)
    install_course()
    STAMP.write_text(mark)
    print(f"Ready after {time.perf_counter() - began:.0f} s.", flush=True)


def main() -> int:
    """Exit status: 0 ready, 1 with one line on what is missing, 130 interrupted."""
    try:
        set_up(quiet="--quiet" in sys.argv)
    except SetupError as error:
        print(f"Set-up stopped: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"Set-up stopped: {error.strerror}: {error.filename}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; run it again to go on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    startup.run(main)
