"""A real browser for the tests, and JupyterLab as `make lab` starts it.

SCREENSHOTS=folder keeps the pictures; without it they lie in pytest's temporary folder.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.lessons import REAL_MODEL, course_copy, smallest

# Walked in every run: between them they have each kind of widget, and a served page. `make soak`
# walks the others, and nothing is seen there of a page that these do not have.
WALKED = ("00_start_here", "03_parameter_sliders", "06_serving")


@dataclass
class Lab:
    """A running JupyterLab on a copy of the lessons, and its learner's progress file."""

    url: str
    token: str
    progress: Path


def forget_outputs(path: Path) -> None:
    """Take the stored outputs out: what is there afterwards, the browser has run."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    path.write_text(json.dumps(notebook), encoding="utf-8")


def shorten(path: Path) -> None:
    """Make repeats, texts and clients as few as the lesson works with: its widgets stay."""
    least = {k: v for k, v in smallest(path).items() if type(v) is int}
    notebook = json.loads(path.read_text(encoding="utf-8"))
    (cell,) = [c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", [])]
    source = "".join(cell["source"])
    for name in sorted(set(least) - {"SEED", "MAX_NEW_TOKENS"}):
        source, found = re.subn(rf"(?m)^{name} = \d+", f"{name} = {least[name]}", source)
        assert found == 1, name
    cell["source"] = source
    path.write_text(json.dumps(notebook), encoding="utf-8")


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """As `make lab` starts it, on a copy, so that the stored outputs stay as they are.

    The instruct model, which takes its time, is there in `make soak` alone.
    """
    folder = tmp_path_factory.mktemp("lab")
    soaking = any(item.get_closest_marker("soak") for item in request.session.items)
    course = ROOT if soaking else course_copy(tmp_path_factory.mktemp("course"), REAL_MODEL)
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    for path in (folder / "notebooks").glob("*.ipynb"):
        forget_outputs(path)
        if path.stem in WALKED:
            shorten(path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    env = os.environ | {
        "JUPYTER_CONFIG_PATH": str(ROOT / "jupyter"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "LLM_BASICS_PROGRESS": str(folder / "progress.json"),
        "PYTHONPATH": str(course),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--log-level=WARN"]
    command.append("--expose-app-in-browser")  # for the questions below
    command += [f"--ServerApp.root_dir={folder}", f"--ServerApp.port={port}"]
    command += ["--ServerApp.port_retries=0", f"--IdentityProvider.token={token}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    log = folder / "lab.log"
    with log.open("wb") as output:
        server = subprocess.Popen(command, env=env, cwd=folder, stdout=output, stderr=output)
    started = Lab(f"http://127.0.0.1:{port}", token, folder / "progress.json")
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"{started.url}/api?token={token}", timeout=5).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")
                time.sleep(0.3)
        yield started
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
