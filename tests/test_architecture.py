"""What holds the house together: the floors, what a server loads, the hooks before a commit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from classroom import course
from tests import order
from tests.browser.conftest import WALKED
from tests.conftest import ROOT, copy_packages
from tests.test_binder import copy_course

SERVER = """
import sys, threading
from serving.api.app import create_app
from serving.config import load_config
from serving.models import Models
from serving.service import Service

service, ready = Service(load_config(model_name="course-gpt-1m")), threading.Event()
service.load(ready.set, print)
assert ready.wait(100)
asked = {"prompt": "A server", "max_new_tokens": 4}
answer = create_app(Models(service)).test_client().post("/generate", json=asked)
service.close()
print(answer.status_code, [m for m in ("IPython", "ipywidgets", "matplotlib") if m in sys.modules])
"""


def contracts(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command as c; c(['--no-cache'])"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_a_server_that_generates_has_no_notebook_library_loaded() -> None:
    ran = subprocess.run([sys.executable, "-c", SERVER], cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout == "200 []\n", ran.stdout + ran.stderr[-2000:]


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("system/errors.py", "import serving", "classroom stands on serving, serving on helpers"),
        ("serving/config.py", "import classroom", "classroom stands on serving, serving on"),
        ("system/errors.py", "import nbformat", "helpers and serving read and run no notebook"),
        ("serving/config.py", "import IPython", "the service needs no notebook library"),
    ],
)
def test_an_import_against_the_floors_is_found(
    module: str, line: str, broken: str, tmp_path: Path
) -> None:
    copy_packages(tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    ran = contracts(tmp_path)
    assert ran.returncode == 1
    assert any(broken in row and row.endswith("BROKEN") for row in ran.stdout.splitlines())
    assert ran.stdout.count("BROKEN") == 1


def test_the_floors_hold_as_they_are() -> None:
    ran = contracts(ROOT)
    assert ran.returncode == 0 and "3 kept, 0 broken" in ran.stdout, ran.stdout


def test_what_the_description_names_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 80
    named = set(re.findall(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:toml|md))`", text))
    assert len(named) > 20
    missing = {name for name in named if not (ROOT / name).exists()}
    assert not missing, f"docs/architecture.md names {missing}"
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / "docs" / link).is_file(), link


def test_what_every_run_chooses_by_name_is_there() -> None:
    """A renamed file would start late, a renamed lesson be walked in `make soak` alone."""
    for name in {*order.FIRST, *order.SINGLY, *order.TOGETHER}:
        assert (ROOT / name).exists(), name
    assert {one.file for one in course.written()} >= set(WALKED)
    nodes = ["tests/test_tokens.py::a", "tests/test_lesson_runs.py::b[c]", "tests/browser/x.py::d"]
    assert sorted(nodes, key=order.rank)[-1] == nodes[0]


# --- what pre-commit finds ----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the hooks name .venv/bin")
def test_pre_commit_finds_style_machine_paths_and_stale_copies(
    tmp_path: Path, require_tool: Callable[..., str]
) -> None:
    git = require_tool("git")
    course = tmp_path / "course"
    course.mkdir()
    copy_course(course)
    (course / ".venv").symlink_to(sys.prefix)
    for arguments in (["init", "-q"], ["add", "."]):
        subprocess.run([git, *arguments], cwd=course, check=True)

    def failed() -> set[str]:
        """The hooks that refuse the course as it stands."""
        command = [sys.executable, "-m", "pre_commit", "run", "--all-files", "--color=never"]
        environment = os.environ | {"PRE_COMMIT_HOME": str(tmp_path / "cache")}
        ran = subprocess.run(command, cwd=course, env=environment, capture_output=True, text=True)
        found = set(re.findall(r"(?m)^- hook id: (.+)$", ran.stdout))
        assert bool(found) == bool(ran.returncode), ran.stdout + ran.stderr
        return found

    def spoil(name: str, old: str, new: str) -> None:
        path = course / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    assert failed() == set()
    spoil("system/errors.py", "import", "import os\nimport")
    somewhere = "/".join(("", "home", "ada", "course", ""))  # written so that no check finds it
    spoil("notebooks/01_tokenization.ipynb", "A server reads", f"{somewhere} A server reads")
    spoil("notebooks/course.toml", '"Serving"', '"Serving it"')
    assert failed() >= {"ruff-check", "machine-paths", "sync"}
