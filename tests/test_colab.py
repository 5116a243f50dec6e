"""Google Colab: the cell that fetches the course, and what tools/colab.py installs.

Colab itself cannot be had here. A module `google.colab` stands in for it, a repository on this
machine for GitHub, and pip installs small stand-ins for the packages, really.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest

from classroom import course
from tests.conftest import ROOT
from tests.test_binder import copy_course
from tests.test_setup import make_wheel

LESSONS = course.notebooks()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LEARNERS = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["lab"]
PINS = dict(pin.split("==") for pin in LEARNERS)
IDENTITY = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]


def colab_cell(path: Path) -> nbformat.NotebookNode:
    """The lesson's first cell of code."""
    cells = nbformat.read(path, as_version=4).cells
    return next(cell for cell in cells if cell.cell_type == "code")


# --- the cell -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_first_cell_is_short_and_does_nothing_elsewhere(path: Path) -> None:
    cell = colab_cell(path)
    assert f"https://github.com/{PROJECT['tool']['course']['repository']}" in cell.source
    assert len(cell.source.splitlines()) <= 6 and cell.outputs == []
    imported, condition = ast.parse(cell.source).body
    assert ast.unparse(imported) == "import sys"
    assert isinstance(condition, ast.If) and condition.orelse == []
    assert ast.unparse(condition.test) == "'google.colab' in sys.modules"


NOTEBOOK = """
import json, sys, types
from IPython.core.interactiveshell import InteractiveShell
cells, on_colab = json.loads(sys.argv[1]), sys.argv[2] == "colab"
if on_colab:
    sys.modules["google.colab"] = types.ModuleType("google.colab")
shell = InteractiveShell.instance()
for cell in cells:
    shell.run_cell(cell).raise_error()
"""


def run_cells(folder: Path, where: str, cells: list[str], **environment: str) -> str:
    """What the cells print, run one after the other as a notebook in this folder."""
    ran = subprocess.run(
        [sys.executable, "-c", NOTEBOOK, json.dumps(cells), where],
        cwd=folder,
        env=os.environ | {"IPYTHONDIR": str(folder.parent / "ipython")} | environment,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    return ran.stdout + ran.stderr


@pytest.mark.skipif(os.name == "nt", reason="Colab is Linux")
@pytest.mark.slow
def test_alone_on_colab_a_lesson_fetches_the_course(
    tmp_path: Path, require_tool: Callable[..., str]
) -> None:
    """git really clones: a repository with today's files, in the place of GitHub's."""
    git = require_tool("git")
    published, content = tmp_path / "published", tmp_path / "content"
    published.mkdir()
    content.mkdir()
    copy_course(published)
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "the course"]):
        subprocess.run([git, *IDENTITY, *arguments], cwd=published, check=True)
    address = f"https://github.com/{PROJECT['tool']['course']['repository']}"
    github = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{published.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": address,
    }
    cell = colab_cell(LESSONS[0]).source
    assert run_cells(content, "elsewhere", [cell, "print('next')"]) == "next\n"
    assert list(content.iterdir()) == []

    then = """
import helpers
from helpers.isolated import run_isolated

def where():
    import helpers
    return helpers.__file__

print(helpers.__file__, run_isolated(where))
print(helpers.load("course-gpt-1m").generate("A server", max_new_tokens=8, seed=0).new_tokens)
"""
    shown = run_cells(content, "colab", [cell, cell, then], **github)
    said, again, places, tokens = shown.splitlines()
    assert said == again == "The course is in course/; newly installed: nothing."
    assert places.split() == [str(content / "course/helpers/__init__.py")] * 2
    assert int(tokens) > 0


# --- tools/colab.py -----------------------------------------------------------------------


class Colab:
    """An environment like Colab's: newer and older packages, some missing, and an index."""

    def __init__(self, folder: Path) -> None:
        self.course, self.wheels = folder / "course", folder / "wheels"
        self.wheels.mkdir()
        (self.course / "tools").mkdir(parents=True)
        shutil.copy(ROOT / "tools/colab.py", self.course / "tools")
        shutil.copy(ROOT / "pyproject.toml", self.course)
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        self.python = folder / "venv/bin/python"
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHONPATH"))}
        self.env = env | {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"}
        self.env["PIP_FIND_LINKS"] = self.wheels.as_uri()

    def has(self, **packages: str) -> None:
        """Install these versions."""
        ready = self.wheels.parent / "ready"
        ready.mkdir(exist_ok=True)
        files = [make_wheel(str(ready), name, number) for name, number in packages.items()]
        command = [str(self.python), "-m", "pip", "install", "-q", "--no-deps", *files]
        subprocess.run(command, cwd=ready, env=self.env, check=True)

    def offers(self, name: str, *needs: str, number: str = "") -> None:
        """A package that pip could install."""
        number = number or PINS[name.replace("_", "-")]
        make_wheel(str(self.wheels), name, number, needs)

    def set_up(self) -> subprocess.CompletedProcess[str]:
        command = [str(self.python), "course/tools/colab.py"]
        return subprocess.run(
            command, cwd=self.course.parent, env=self.env, capture_output=True, text=True
        )

    def installed(self) -> dict[str, str]:
        command = [str(self.python), "-m", "pip", "list", "--format=json"]
        listed = json.loads(subprocess.check_output(command, env=self.env, text=True))
        return {p["name"]: p["version"] for p in listed if p["name"] not in ("pip", "setuptools")}


@pytest.fixture
def colab(tmp_path: Path) -> Colab:
    if os.name == "nt":
        pytest.skip("Colab is Linux")
    found = Colab(tmp_path)
    lab = {"jupyterlab", "jupyterlab-execute-time", "jupyter-resource-usage", "setuptools"}
    lab |= {"jupyter-server-proxy", "papermill", "flask-openapi3"}  # neither of these on Colab
    there = {name.replace("-", "_"): "1.0" for name in PINS if name not in lab}
    found.has(**there | {"torch": "2.9.0+cu126", "numpy": "2.0.2", "transformers": "4.57.1"})
    return found


@pytest.mark.slow
def test_only_what_is_missing_or_too_old_is_installed(colab: Colab) -> None:
    before = colab.installed()
    colab.offers("papermill")
    colab.offers("flask_openapi3", "flask")
    colab.offers("transformers", "torch>=2.4", "tokenizers>=0.22")
    colab.offers("tokenizers", number="0.23.0")
    for newer in ("torch", "numpy", "flask", "jupyterlab", "setuptools"):
        colab.offers(newer)
    ran = colab.set_up()
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout + ran.stderr
    wanted = {name: PINS[name] for name in ("flask-openapi3", "transformers", "papermill")}
    listed = ", ".join(f"{name} {number}" for name, number in wanted.items())
    assert ran.stdout == f"The course is in course/; newly installed: {listed}.\n"
    new = {name.replace("-", "_"): number for name, number in wanted.items()}
    after = {name.replace("-", "_"): number for name, number in colab.installed().items()}
    old = {name.replace("-", "_"): number for name, number in before.items()}
    assert after == old | new | {"tokenizers": "0.23.0"}
    assert after["torch"] == "2.9.0+cu126"

    again = colab.set_up()
    assert again.stdout == "The course is in course/; newly installed: nothing.\n"


@pytest.mark.slow
def test_what_colab_has_is_never_replaced(colab: Colab) -> None:
    """A package that needs another torch than Colab's is refused, in one line."""
    before = colab.installed()
    for name in ("papermill", "flask_openapi3", "torch"):
        colab.offers(name)
    colab.offers("transformers", "torch>=2.10")
    ran = colab.set_up()
    assert ran.returncode == 1 and ran.stdout.count("\n") == 1, ran.stdout + ran.stderr
    assert "could not be installed" in ran.stdout and "papermill" in ran.stdout
    assert colab.installed() == before


def test_oldest_versions_allow_the_pinned_ones() -> None:
    pins = ["torch==0", "transformers==0", "jupyterlab==0", "nosuch==1"]
    code = f"from colab import *; print(sort({pins}))"
    said = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT / "tools", text=True)
    wanted, stays = ast.literal_eval(said)
    assert wanted == ["nosuch==1"]
    assert f"transformers=={version('transformers')}" in stays
