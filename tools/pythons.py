"""Run the fast tests on each supported Python that this machine has (`make test-pythons`).

    python tools/pythons.py            every one that is found
    python tools/pythons.py 3.12       some
    python tools/pythons.py --list     say which there are, and do nothing

They are looked for on the path and in the folders of pyenv and uv. Each gets an environment of
its own, such as .venv-3.12, which stays for the next time; the one in .venv is taken as it is.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import startup
from setup_env import NEWEST, OLDEST, ROOT, Environment, python_version

VERSIONS = [f"3.{minor}" for minor in range(OLDEST[1], NEWEST[1] + 1)]
FAST = "not slow and not browser and not soak"


def find(version: str) -> str:
    """A Python of this version (3.12, say) that runs, or an empty string."""
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv") / "versions"
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or home / ".local/share/uv/python")
    found = [shutil.which(f"python{version}") or ""]
    found += sorted(map(str, pyenv.glob(f"{version}.*/bin/python")), reverse=True)
    found += sorted(map(str, uv.glob(f"cpython-{version}.*/bin/python3")), reverse=True)
    wanted = tuple(map(int, version.split(".")))
    return next((python for python in found if python and python_version(python) == wanted), "")


def test(version: str, python: str) -> bool:
    """Set up the environment of one Python and run the fast tests in it: whether all passed."""
    own = Environment(ROOT / ".venv")
    if python_version(str(own.python)) == tuple(map(int, version.split("."))):
        environment, status = own, 0
    else:
        environment = Environment(ROOT / f".venv-{version}")
        command = [sys.executable, "tools/setup_env.py", "--quiet", "--dev"]
        command += ["--venv", environment.folder.name]
        status = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHON": python}).returncode
    if status == 0:
        command = [str(environment.python), "-m", "pytest", "-q", "-n", "2", "--dist", "loadscope"]
        status = subprocess.run([*command, "-m", FAST], cwd=ROOT).returncode
    return status == 0


def main() -> int:
    """Exit status: 0 all tests passed on every Python that is there, 1 not all, 2 no such one."""
    parser = argparse.ArgumentParser(description="Run the fast tests on each Python found.")
    parser.add_argument("versions", nargs="*", metavar="VERSION", help=", ".join(VERSIONS))
    parser.add_argument("--list", action="store_true", help="only say which there are")
    options = parser.parse_args()
    if unknown := set(options.versions) - set(VERSIONS):
        print(f"Python {', '.join(sorted(unknown))}: choose {', '.join(VERSIONS)}", file=sys.stderr)
        return 2
    verdicts, failed = [], False
    for version in options.versions or VERSIONS:
        python = find(version)
        if not python:
            verdicts.append(f"Python {version}: not on this machine, so not tested.")
        elif options.list:
            verdicts.append(f"Python {version}: {python}")
        else:
            print(f"--- Python {version}, {python}", flush=True)
            passed = test(version, python)
            failed |= not passed
            verdicts.append(f"Python {version}: {'passed' if passed else 'FAILED'}.")
    print("\n".join(verdicts))
    return int(failed)


if __name__ == "__main__":
    startup.run(main)
