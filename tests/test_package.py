"""The bare package: `pip install .` in an environment that has only what it asks for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.conftest import ROOT, copy_packages
from tests.test_setup import PROJECT, closure

JUPYTER = ("IPython", "ipykernel", "ipywidgets", "jupyterlab", "matplotlib", "nbformat", "pandas")

SERVE = """
import sys
import helpers
from serving.client import Client
from serving.client.process import ServerProcess

print(helpers.__file__)
model = sys.argv[1]
print(helpers.load(model).generate("A server", max_new_tokens=8, seed=0).new_tokens)
with ServerProcess(model=model) as server:
    with Client(server.url) as client:
        print(client.generate("A server", max_new_tokens=8, seed=0).text.replace("\\n", " "))
"""

EXERCISE = """
from classroom.exercises import lesson_03
lesson_03.questions[0].hint()
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python in an environment with the course's dependencies (linked), and no extra's."""
    folder = tmp_path_factory.mktemp("bare")
    course, linked = folder / "course", folder / "dependencies"
    course.mkdir()
    linked.mkdir()
    copy_packages(course)
    for name in ("pyproject.toml", "LICENSE", "LICENSE-TEXT"):
        shutil.copy(ROOT / name, course)
    for name in closure(PROJECT["project"]["dependencies"]):
        package = distribution(name)
        tops = {file.parts[0] for file in package.files or [] if file.parts[0] != ".."}
        for top in tops - {"__pycache__"}:
            if not (linked / top).exists():
                (linked / top).symlink_to(Path(str(package.locate_file(top))))
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (site,) = venv.glob("lib/python3*/site-packages")
    (site / "dependencies.pth").write_text(f"{linked}\n")
    python = venv / "bin/python"
    # Dependencies are not left out: pip would fail if one were not there.
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index"]
    command = [*pip, "--no-build-isolation", "--quiet", str(course)]
    ran = subprocess.run(command, cwd=folder, env=clean(), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return python


def clean() -> dict[str, str]:
    """The environment without anything that names another Python's packages, or an index."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_"))}
    return kept | {"PIP_CONFIG_FILE": os.devnull}


def run(python: Path, code: str, *arguments: str) -> str:
    """What code prints in the bare environment, far from the repository."""
    command = [str(python), "-c", code, *arguments]
    ran = subprocess.run(
        command, cwd=python.parent, env=clean(), capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_the_bare_package_serves_a_text_without_jupyter(bare: Path) -> None:
    find = f"from importlib.util import find_spec; print([n for n in {JUPYTER} if find_spec(n)])"
    assert run(bare, find) == "[]\n", "what this test is about is not absent"
    file, tokens, answer = run(bare, SERVE, str(ROOT / "models/course-gpt-1m")).splitlines()
    assert Path(file).is_relative_to(bare.parent.parent) and int(tokens) == 8
    assert answer.startswith("A server ") and len(answer) > 16


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_exercises_answer_without_jupyter(bare: Path) -> None:
    assert "hint 1 of" in run(bare, EXERCISE)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_the_check_knows_what_the_bare_package_needs(bare: Path) -> None:
    code = "from helpers.check import check_packages, pinned; print(pinned()); c = check_packages()"
    said = run(bare, f"{code}; print(c.ok, c.found)")
    assert "torch==" in said and "jupyterlab" not in said
    assert "True all 18 as pinned" in said
