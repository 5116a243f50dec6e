"""Every lesson: its frame, its stored outputs compared strictly, and a run with other values.

nbval runs a lesson as it is stored; papermill runs it with another model, seed and length,
and what the lesson records must follow them.
"""

from __future__ import annotations

import ast
import dataclasses
import html
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
import papermill
import psutil
import pytest
from nbformat import NotebookNode

from classroom import course
from classroom.records import RECORD_TYPE
from helpers.models import cards
from tests.footprint import PeakFootprint, footprint, tree

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = course.notebooks()
SANITIZE = ROOT / "tests" / "nbval_sanitize.cfg"
START = "00_start_here.ipynb"
CELL_SECONDS = 300
MOST_MEMORY = 2**30  # bytes that a lesson's kernel may hold
# A cell with this tag shows the model that `make model` fetches, or says that it is not there:
# its stored outputs are those with the model, and only with it are they compared.
REAL_MODEL, REAL_MODEL_TAG = "smollm2-135m", "needs-smollm2"
MOST_MEMORY_REAL = 1.3 * 2**30  # bytes, for a lesson that loads it
# Bytes for JupyterLab, a lesson's kernel and all processes that it starts: Binder ends it at 2 GB.
MOST_TOGETHER = 1.6 * 2**30
PARAMETERS = {"MODEL_NAME": "model", "SEED": "seed", "MAX_NEW_TOKENS": "new_tokens"}  # recorded as
OTHER_MODEL, OTHER_SEED = "course-gpt-1m", 11
each_lesson = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]


def tags(cell: NotebookNode) -> list[str]:
    return list(cell.metadata.get("tags", []))


def outputs(notebook: NotebookNode) -> Iterator[tuple[NotebookNode, NotebookNode]]:
    for cell in code_cells(notebook):
        for output in cell.outputs:
            yield cell, output


def texts(output: NotebookNode) -> dict[str, str]:
    """Everything that can be read in an output, without the pixels of pictures."""
    found = {k: str(v) for k, v in output.get("data", {}).items() if not k.startswith("image/")}
    found["stream"] = output.get("text", "")
    found["traceback"] = "\n".join(output.get("traceback", []))
    return {k: re.sub(r"base64,[A-Za-z0-9+/=]+", "base64,", v) for k, v in found.items()}


def needs_real_model(notebook: NotebookNode) -> bool:
    """Whether a lesson loads the model that `make model` fetches."""
    return any(REAL_MODEL_TAG in tags(cell) for cell in code_cells(notebook))


def parameters_cell(notebook: NotebookNode) -> NotebookNode:
    (cell,) = [c for c in code_cells(notebook) if "parameters" in tags(c)]
    return cell


def defaults(notebook: NotebookNode) -> dict[str, Any]:
    """The parameters' values as the lesson stores them."""
    found = {}
    for statement in ast.parse(parameters_cell(notebook).source).body:
        assert isinstance(statement, ast.Assign), "the parameters cell holds only assignments"
        (target,) = statement.targets
        assert isinstance(target, ast.Name)
        found[target.id] = ast.literal_eval(statement.value)
    return found


def recorded(notebook: NotebookNode) -> dict[str, Any]:
    """Every value that the lesson recorded."""
    values: dict[str, Any] = {}
    for _, output in outputs(notebook):
        values |= output.get("data", {}).get(RECORD_TYPE, {})
    return values


def others(notebook: NotebookNode) -> dict[str, Any]:
    """The values that papermill puts in place of a lesson's own."""
    length = max(
        2, min(defaults(notebook)["MAX_NEW_TOKENS"], recorded(notebook)["new_tokens"]) // 2
    )
    return {"MODEL_NAME": OTHER_MODEL, "SEED": OTHER_SEED, "MAX_NEW_TOKENS": length}


def ignored(values: dict[str, Any], injected: dict[str, Any]) -> set[str]:
    """The parameters that recorded values do not follow; a text may end before its length."""
    wrong = {
        name
        for name in ("MODEL_NAME", "SEED")
        if values.get(PARAMETERS[name]) != injected[name]
    }  # fmt: skip
    if not 0 < values.get("new_tokens", 0) <= injected["MAX_NEW_TOKENS"]:
        wrong.add("MAX_NEW_TOKENS")
    return wrong


def peak_memory(process: psutil.Process) -> int:
    """The most bytes a process held so far; elsewhere than on Linux, what it holds now."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s*(\d+)", status)[1]) * 1024  # type: ignore[index]
    except (OSError, TypeError):
        return process.memory_info().rss


# --- the course as a whole


def test_there_are_lessons() -> None:
    assert NOTEBOOKS and NOTEBOOKS[0].name == START
    numbers = [int(p.name[:2]) for p in NOTEBOOKS]
    assert numbers == list(range(len(numbers))), "a number is missing or there twice"


def test_few_outputs_are_left_out_of_the_comparison() -> None:
    cells = [cell for path in NOTEBOOKS for cell in code_cells(read(path))]
    left_out = [cell for cell in cells if "nbval-ignore-output" in tags(cell)]
    assert len(left_out) <= 0.15 * len(cells), f"{len(left_out)} of {len(cells)}"


# --- what each lesson looks like


@each_lesson
def test_executed_in_order_without_errors(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    for cell, output in outputs(notebook):
        if output.output_type == "error":
            assert "raises-exception" in tags(cell), f"{output.ename}: {output.evalue}"
    known = {"parameters", "nbval-ignore-output", "raises-exception", REAL_MODEL_TAG}
    for cell in code_cells(notebook):
        assert set(tags(cell)) <= known, f"{tags(cell)}: tests know only {known}"
        assert "NBVAL_" not in cell.source, "use the tag, which does not show"


def test_the_machine_was_ready_when_the_outputs_were_stored() -> None:
    """nbval compares none of it: what is found differs from machine to machine."""
    shown = [texts(output) for _, output in outputs(read(NOTEBOOKS[0]))]
    assert "All ready." in str(shown)


@each_lesson
def test_size_and_measure(path: Path) -> None:
    assert path.stat().st_size < 1_000_000
    notebook = read(path)
    (exercises,) = [n for n, c in enumerate(notebook.cells) if "## Exercises" in c.source]
    assert 25 <= exercises <= 41  # one of them is for Colab only
    assert len(notebook.cells) <= 49  # with a cell a question, the recap and the way on
    prose = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    prose = re.sub(r"\]\([^)]*\)|<[^>]+>|[|#*`_-]+", " ", prose)
    assert len(prose.split()) <= 1600


@each_lesson
def test_parameters(path: Path) -> None:
    """Documented, used beyond being recorded, and not overwritten later on."""
    notebook = read(path)
    cell = parameters_cell(notebook)
    names = defaults(notebook)
    assert set(PARAMETERS) <= set(names)
    for line in cell.source.splitlines():
        assert re.search(r"  # \w", line), f"explain {line!r} in a comment"
    cells = code_cells(notebook)
    rest = [c.source for c in cells[cells.index(cell) + 1 :]]
    used: Counter[str] = Counter()
    for source in rest:
        plain = "\n".join(line for line in source.splitlines() if not re.match(r"\s*[%!]", line))
        tree = ast.parse(plain)
        recording = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "record"
        ]
        only_recorded = {id(n) for call in recording for n in ast.walk(call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id in names and id(node) not in only_recorded:
                assert isinstance(node.ctx, ast.Load), f"{node.id} is overwritten"
                used[node.id] += 1
    assert set(used) == set(names), f"never used: {set(names) - set(used)}"


@each_lesson
def test_pictures_are_described(path: Path) -> None:
    notebook = read(path)
    for _, output in outputs(notebook):
        data = output.get("data", {})
        for kind in ("image/png", "image/jpeg", "image/svg+xml"):
            assert kind not in data, "show figures with figures.show(figure, alt=…)"
    sources = [c.source for c in notebook.cells if c.cell_type == "markdown"]
    sources += [str(o.get("data", {}).get("text/html", "")) for _, o in outputs(notebook)]
    for source in sources:
        for image in re.findall(r"<img\b[^>]*>", source):
            found = re.search(r"""\balt=("([^"]*)"|'([^']*)')""", image)
            description = html.unescape((found[2] or found[3] or "") if found else "")
            assert len(description) >= 20, image[:200]
        for description in re.findall(r"!\[([^\]]*)\]", source):
            assert description.strip()


@each_lesson
def test_outputs_name_no_folder_of_a_machine(path: Path) -> None:
    for cell, output in outputs(read(path)):
        for kind, text in texts(output).items():
            found = re.search(r"(/home/|/root/|/tmp/|/work/|/Users/|\b[A-Z]:\\)[^\s\"']*", text)
            assert found is None, f"{found} in {kind} of {cell.source[:80]!r}"


@each_lesson
def test_navigation(path: Path) -> None:
    """Previous, contents and next, at the top and at the bottom; badges that open this lesson."""
    cells = read(path).cells
    assert cells[0].source.startswith(f"# {path.name[:2]} · ")
    number = NOTEBOOKS.index(path)
    wanted = {START} if number else set()
    wanted |= {p.name for p in NOTEBOOKS[max(0, number - 1) : number + 2]} - {path.name}
    for cell in (cells[0], cells[-1]):
        line = cell.source.strip().splitlines()[-1]
        assert set(re.findall(r"\]\(([^):]+\.ipynb)\)", line)) == wanted
        assert "contents" in line
    assert cells[0].source.strip().splitlines()[-1] == cells[-1].source.strip().splitlines()[-1]
    badges = re.findall(r"\]\((https://[^)]*\.ipynb)\)", cells[0].source)
    assert len(badges) == 2 and all(url.endswith(f"notebooks/{path.name}") for url in badges)
    for cell in cells:
        if cell.cell_type == "markdown":
            for link in re.findall(r"\]\(([^):#]+)(?:#[^)]*)?\)", cell.source):
                assert (path.parent / link).exists(), link


@each_lesson
def test_a_lesson_that_ignores_a_value_is_found_out(path: Path) -> None:
    """The stored run is what a lesson would record that takes no notice of papermill."""
    notebook = read(path)
    assert ignored(recorded(notebook), others(notebook)) == set(PARAMETERS)
    assert ignored(recorded(notebook), defaults(notebook)) == set()


@each_lesson
def test_cells_that_need_the_real_model_stored_it(path: Path) -> None:
    for cell in code_cells(read(path)):
        if REAL_MODEL_TAG in tags(cell):
            assert "make model" not in str([texts(o) for o in cell.outputs]), "stored without it"


def test_without_the_real_model_its_cells_are_run_but_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = nbformat.v4.new_code_cell("print(1)", metadata={"tags": [REAL_MODEL_TAG]})
    plain = nbformat.v4.new_code_cell("print(2)")
    lesson, folder = tmp_path / "lesson.ipynb", tmp_path / "copy"
    folder.mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=[cell, plain]), lesson)
    missing = dataclasses.replace(cards()[REAL_MODEL], name="not-here")
    monkeypatch.setitem(cards(), REAL_MODEL, missing)
    copied = code_cells(read(comparable(lesson, folder)))
    assert [("nbval-ignore-output" in tags(cell)) for cell in copied] == [True, False]


# --- running them


def comparable(path: Path, folder: Path) -> Path:
    """The lesson as nbval can compare it here: without the real model, not the cells that show it.

    Every cell still runs, so a cell that fails where the model is missing is found out.
    """
    notebook = read(path)
    if cards()[REAL_MODEL].here or not needs_real_model(notebook):
        return path
    for cell in code_cells(notebook):
        if REAL_MODEL_TAG in tags(cell):
            cell.metadata["tags"] = [*tags(cell), "nbval-ignore-output"]
    copy = folder / path.name
    nbformat.write(notebook, copy)
    return copy


def nbval(path: Path, folder: Path, *options: str, **environment: str) -> Any:
    """nbval on one notebook, strictly, from another folder and in a process of its own."""
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env"]
    command += [f"--nbval-cell-timeout={CELL_SECONDS}", "--nbval-sanitize-with", str(SANITIZE)]
    command += ["-q", "-p", "no:cacheprovider", *options, str(path)]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def lab_memory(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Bytes that JupyterLab holds as `make lab` starts it, with the first lesson opened."""
    folder = tmp_path_factory.mktemp("lab")
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


def assert_fits_on_binder(watched: PeakFootprint, lab_memory: int) -> str:
    """The kernel, its children and JupyterLab together: under the limit, and in words."""
    together = watched.peak + lab_memory
    said = f"{watched.processes} processes and JupyterLab at most {together / 2**20:.0f} MiB"
    assert watched.peak > 50e6, "nothing was measured"
    import torch

    if torch.version.cuda is None:  # the build that Binder has; CUDA's libraries are larger
        assert together < MOST_TOGETHER, said
    return said


@each_lesson
@pytest.mark.slow
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
    memory = assert_fits_on_binder(watched, lab_memory)
    with capsys.disabled():
        print(f"\n{path.stem}: {seconds:.0f} s as stored, {memory}")


@each_lesson
@pytest.mark.slow
def test_other_values(
    path: Path, tmp_path: Path, lab_memory: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another model, seed and length: the lesson runs, follows them, and stays small."""
    stored = read(path)
    injected = others(stored)
    peaks = [0]

    def executed(**_: Any) -> None:
        for process in psutil.Process().children():
            if any("ipykernel_launcher" in part for part in process.cmdline()):
                peaks.append(peak_memory(process))

    start = time.perf_counter()
    # papermill raises for tracebacks that a lesson shows on purpose, too: they are looked at below.
    with suppress(papermill.PapermillExecutionError), PeakFootprint() as watched:
        papermill.execute_notebook(
            path,
            tmp_path / path.name,
            parameters=injected,
            cwd=tmp_path,
            progress_bar=False,
            execution_timeout=CELL_SECONDS,
            on_cell_executed=executed,
        )
    seconds = time.perf_counter() - start
    other = read(tmp_path / path.name)
    assert all(cell.execution_count for cell in code_cells(other)), "the lesson stopped half-way"
    for cell, output in outputs(other):
        if output.output_type == "error":
            assert "raises-exception" in tags(cell), f"{output.ename}: {output.evalue}"
    assert ignored(recorded(other), injected) == set(), recorded(other)

    compared = [c for c in code_cells(stored) if "nbval-ignore-output" not in tags(c)]
    found = {c.source: [texts(o) for o in c.outputs] for c in code_cells(other)}
    before = {c.source: [texts(o) for o in c.outputs] for c in compared}
    changed = [source for source in before if found[source] != before[source]]
    assert len(changed) >= 3, "other values changed next to nothing in what the lesson shows"

    most = MOST_MEMORY_REAL if needs_real_model(stored) else MOST_MEMORY
    assert 50e6 < max(peaks) < most, f"{max(peaks) / 1e6:.0f} MB"
    memory = assert_fits_on_binder(watched, lab_memory)
    with capsys.disabled():
        kernel = f"kernel at most {max(peaks) / 1e6:.0f} MB"
        print(f"\n{path.stem}: {seconds:.0f} s, {kernel}, {memory}")
