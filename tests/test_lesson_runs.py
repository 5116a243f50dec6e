"""Every lesson run twice: as stored, compared strictly, and with its smallest values.

nbval runs it as it is stored, while its memory is watched. papermill runs it with another
model, another seed and the smallest sizes, where the instruct model is missing: what the lesson
records must follow the values, and nothing that it shows may be NaN.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import papermill
import psutil
import pytest
from filelock import FileLock
from nbformat import NotebookNode

from tests.conftest import ROOT
from tests.footprint import PeakFootprint, footprint, tree
from tests.lessons import (
    CELL_SECONDS,
    NAN,
    OTHER_MODEL,
    OTHER_SEED,
    REAL_MODEL,
    code_cells,
    comparable,
    course_copy,
    defaults,
    each_lesson,
    ignored,
    nbval,
    needs_real_model,
    outputs,
    read,
    recorded,
    shown,
    tags,
    texts,
    tiny,
)

# A lesson of a minute takes five beside other work, and more where its threads wait for each other;
# what hangs is found by the limit of a cell.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
START = "00_start_here.ipynb"
MOST_MEMORY = 2**30  # bytes that a lesson's kernel may hold
MOST_MEMORY_REAL = 1.3 * 2**30  # bytes, for a lesson that loads the instruct model
# Bytes for JupyterLab, a lesson's kernel and all processes that it starts: Binder ends it at 2 GB.
MOST_TOGETHER = 1.6 * 2**30


def measure_lab(folder: Path) -> int:
    """Bytes that JupyterLab holds as `make lab` starts it, with the first lesson opened."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    env = os.environ | {"PORT": str(port), "BROWSER": "none", "JUPYTER_TOKEN": token}
    env |= {"JUPYTER_RUNTIME_DIR": str(folder)}
    command = [sys.executable, str(ROOT / "tools/lab.py")]
    with (folder / "lab.log").open("wb") as log:
        lab = subprocess.Popen(command, env=env, cwd=ROOT, stdout=log, stderr=log)
    try:
        # What the page asks for when it opens.
        for what in ("lab", "lab/api/settings", f"api/contents/notebooks/{START}", "api/kernels"):
            deadline, answered = time.monotonic() + 60, False
            while not answered:
                assert lab.poll() is None and time.monotonic() < deadline, "no JupyterLab"
                time.sleep(0.2)
                with suppress(OSError):
                    address = f"http://127.0.0.1:{port}/{what}?token={token}"
                    urllib.request.urlopen(address, timeout=30).read()
                    answered = True
        return footprint(tree(psutil.Process(lab.pid)))
    finally:
        lab.terminate()
        lab.wait(20)


@pytest.fixture(scope="session")
def lab_memory(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> int:
    """JupyterLab's bytes, measured once for all workers."""
    own = tmp_path_factory.getbasetemp()
    kept = (own if worker_id == "master" else own.parent) / "lab_memory.txt"
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            kept.write_text(str(measure_lab(tmp_path_factory.mktemp("lab"))), encoding="utf-8")
    return int(kept.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def without_real_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The course where nobody ran `make model`."""
    return course_copy(tmp_path_factory.mktemp("course"), without=REAL_MODEL)


def assert_fits(notebook: NotebookNode, watched: PeakFootprint, lab_memory: int) -> str:
    """The kernel alone, and with its children and JupyterLab: under the limits, and in words."""
    together = watched.peak + lab_memory
    said = f"kernel at most {watched.kernel / 1e6:.0f} MB, {len(watched.processes)} processes "
    said += f"and JupyterLab at most {together / 2**20:.0f} MiB"
    each = "\n".join([said, *watched.processes])
    most = MOST_MEMORY_REAL if needs_real_model(notebook) else MOST_MEMORY
    assert 50e6 < watched.kernel < most and watched.peak > 50e6, each
    import torch

    if torch.version.cuda is None:  # the build that Binder has; CUDA's libraries are larger
        assert together < MOST_TOGETHER, each
    return said


@each_lesson
def test_stored_outputs_hold(
    path: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    lab_memory: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lesson = comparable(path, tmp_path_factory.mktemp("lesson"))
    start = time.perf_counter()
    with PeakFootprint() as watched:
        child = nbval(lesson, tmp_path)
    seconds = time.perf_counter() - start
    assert child.returncode == 0, child.stdout[-6000:] + child.stderr[-2000:]
    assert f"{len(code_cells(read(path)))} passed" in child.stdout
    assert not list(tmp_path.iterdir()), "the lesson leaves files behind"
    memory = assert_fits(read(path), watched, lab_memory)
    with capsys.disabled():
        print(f"\n{path.stem}: {seconds:.0f} s as stored, {memory}")


def run_with(path: Path, values: dict[str, Any], folder: Path) -> NotebookNode:
    """The lesson run by papermill to its end: only what it shows on purpose may raise."""
    # papermill raises for tracebacks that a lesson shows on purpose, too: they are looked at below.
    with suppress(papermill.PapermillExecutionError):
        papermill.execute_notebook(
            path,
            folder / path.name,
            parameters=values,
            cwd=folder,
            progress_bar=False,
            execution_timeout=CELL_SECONDS,
        )
    ran = read(folder / path.name)
    for cell, output in outputs(ran):
        if output.output_type == "error":
            assert "raises-exception" in tags(cell), f"{output.ename}: {output.evalue}"
    assert all(cell.execution_count for cell in code_cells(ran)), "the lesson stopped half-way"
    return ran


def assert_follows(stored: NotebookNode, ran: NotebookNode, values: dict[str, Any]) -> None:
    """What it recorded is of these values, and what it shows is not what is stored."""
    assert ignored(recorded(ran), values) == set(), recorded(ran)
    compared = [c for c in code_cells(stored) if "nbval-ignore-output" not in tags(c)]
    found = {c.source: [texts(o) for o in c.outputs] for c in code_cells(ran)}
    before = {c.source: [texts(o) for o in c.outputs] for c in compared}
    changed = [source for source in before if found[source] != before[source]]
    assert len(changed) >= 3, "other values changed next to nothing in what the lesson shows"


@each_lesson
def test_other_and_smallest_values(
    path: Path,
    tmp_path: Path,
    without_real_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And without the instruct model: with it, the lesson runs as stored."""
    monkeypatch.setenv("PYTHONPATH", str(without_real_model))
    start = time.perf_counter()
    ran = run_with(path, tiny(path), tmp_path)
    seconds = time.perf_counter() - start
    assert_follows(read(path), ran, tiny(path))
    found = NAN.search(text := shown(ran))
    assert not found, text[max(0, found.start() - 200) : found.end() + 50]
    with capsys.disabled():
        print(f"\n{path.stem}: {seconds:.0f} s with its smallest values")


@each_lesson
@pytest.mark.soak
def test_other_values_at_half_the_length(path: Path, tmp_path: Path, lab_memory: int) -> None:
    """Otherwise as stored: the lesson follows them, and stays small."""
    stored = read(path)
    length = min(defaults(stored)["MAX_NEW_TOKENS"], recorded(stored)["new_tokens"]) // 2
    values = {"MODEL_NAME": OTHER_MODEL, "SEED": OTHER_SEED, "MAX_NEW_TOKENS": max(2, length)}
    with PeakFootprint() as watched:
        ran = run_with(path, values, tmp_path)
    assert_follows(stored, ran, values)
    assert_fits(stored, watched, lab_memory)


@each_lesson
@pytest.mark.soak
def test_the_instruct_model_everywhere(path: Path, tmp_path: Path, smollm2: str) -> None:
    """`make report ARGS="-p MODEL_NAME=smollm2-135m"`: a large vocabulary, and no GPT-2."""
    with PeakFootprint() as watched:
        ran = run_with(path, {"MODEL_NAME": smollm2}, tmp_path)
    assert not NAN.search(shown(ran))
    assert watched.kernel < MOST_MEMORY_REAL, f"{watched.kernel / 2**20:.0f} MiB"
