"""The floors: what a package may import (`make lint` has the contract), and what a server loads."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SERVER = """
import sys, threading
from serving.api.app import create_app
from serving.config import load_config
from serving.service import Service

service, ready = Service(load_config(model_name="course-gpt-1m")), threading.Event()
service.load(ready.set, print)
assert ready.wait(100)
asked = {"prompt": "A server", "max_new_tokens": 4}
answer = create_app(service).test_client().post("/generate", json=asked)
service.close()
print(answer.status_code, [m for m in ("IPython", "ipywidgets", "matplotlib") if m in sys.modules])
"""


def contracts(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command as c; c(['--no-cache'])"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_a_server_that_generates_has_no_notebook_library_loaded() -> None:
    ran = subprocess.run([sys.executable, "-c", SERVER], cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout == "200 []\n", ran.stdout + ran.stderr[-2000:]


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("helpers/errors.py", "import serving", "classroom stands on serving, serving on helpers"),
        ("serving/config.py", "import classroom", "classroom stands on serving, serving on"),
        ("helpers/errors.py", "import nbformat", "helpers and serving read and run no notebook"),
        ("serving/config.py", "import IPython", "the service needs no notebook library"),
    ],
)
def test_an_import_against_the_floors_is_found(
    module: str, line: str, broken: str, tmp_path: Path
) -> None:
    for name in ("helpers", "serving", "classroom"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
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
