"""Run the notebooks in place and store their outputs (`make outputs`).

    python tools/outputs.py          all lessons
    python tools/outputs.py 01 03    some

What changes from run to run without meaning (ids, timings, widget state, paths in
tracebacks) is taken out, so that a stored notebook changes only when its outputs do.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import startup
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from tqdm import tqdm

from classroom import course
from system.machine import peak_bytes

ROOT = Path(__file__).resolve().parent.parent
CELL_SECONDS = 300
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
# Stored outputs are those of the default model on a CPU, whatever a local .env says, and show
# nobody's progress.
ENVIRONMENT = {
    "DEVICE": "cpu",
    "MODEL_NAME": "",
    "HF_HUB_OFFLINE": "1",
    "LLM_BASICS_PROGRESS": "off",
}
VOLATILE = ("execution", "ExecuteTime", "papermill", "trusted", "collapsed", "scrolled")
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
BAR = re.compile(r"\s*\d+%\|")  # how the text of tqdm's progress bar begins


def merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join pieces of the same stream that follow each other: how they split is chance."""
    merged: list[NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else None
        both_streams = last is not None and last.output_type == output.output_type == "stream"
        if last is not None and both_streams and last.name == output.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def end_bars(notebook: NotebookNode) -> None:
    """Store each progress bar as it ended: its text is sent once, when the bar is still empty.

    Args:
        notebook: run with `store_widget_state`, so that it knows what its widgets show.
    """
    kept = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {})
    states = {f"IPY_MODEL_{key}": one["state"] for key, one in kept.get("state", {}).items()}
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    for data in (out.data for out in outputs if WIDGET_VIEW in out.get("data", {})):
        if not BAR.match(data["text/plain"]):
            continue
        (bar,) = (
            states[part]
            for part in states[f"IPY_MODEL_{data[WIDGET_VIEW]['model_id']}"]["children"]
            if "max" in states[part]
        )
        done = bar["value"] / bar["max"]
        data["text/plain"] = (
            f"{done:4.0%}|{'█' * round(10 * done):<10}| {bar['value']:g}/{bar['max']:g}"
        )


def relative(line: str) -> str:
    """A traceback line without this machine's folders."""
    for folder, shown in ((str(ROOT) + os.sep, ""), (sys.prefix + os.sep, "")):
        home = folder.replace(str(Path.home()), "~", 1)
        line = line.replace(folder, shown).replace(home, shown)
    return line


def tidy(notebook: NotebookNode) -> None:
    """Take out everything that changes from run to run without meaning."""
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    count = 0
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id = f"cell-{number:02d}"
        for key in VOLATILE:
            cell.metadata.pop(key, None)
        if cell.cell_type != "code":
            continue
        count += bool(cell.source.strip())
        cell.execution_count = count if cell.source.strip() else None
        cell.outputs = merge_streams(cell.outputs)
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
            if output.output_type == "error":
                output.traceback = [relative(line) for line in output.traceback]
            output.get("data", {}).pop(WIDGET_VIEW, None)


def run(path: Path) -> tuple[float, float]:
    """Run one notebook and store its outputs: seconds and the kernel's peak memory (MB)."""
    notebook = nbformat.read(path, as_version=4)
    code_cells = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    began, peak, current = time.perf_counter(), 0.0, 0
    with tqdm(total=len(code_cells), desc=path.stem, unit="cell") as bar:

        def started(cell: NotebookNode, cell_index: int) -> None:
            nonlocal current
            current = cell_index + 1

        def executed(cell: NotebookNode, cell_index: int, **_: Any) -> None:
            nonlocal peak
            peak = max(peak, peak_bytes(client.km.provisioner.pid) / 1e6)
            bar.update(cell.cell_type == "code")

        client = NotebookClient(
            notebook,
            timeout=CELL_SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": str(path.parent)}},
            on_cell_start=started,
            on_cell_executed=executed,
        )
        problem = ""
        try:
            client.execute()
        except CellExecutionError as error:
            problem = f"{error.ename}: {error.evalue}"
        except CellTimeoutError:
            problem = f"ran over {CELL_SECONDS} s"
        except DeadKernelError:
            problem = "the kernel died"
    if problem:
        sys.exit(f"{path.name}, cell {current}: {problem}")
    end_bars(notebook)
    tidy(notebook)
    nbformat.validate(notebook)
    nbformat.write(notebook, path)
    return time.perf_counter() - began, peak


def choose(lessons: list[str]) -> list[Path]:
    """The notebooks of these lesson numbers, or all; an unknown number ends the program."""
    known = {path.name[:2]: path for path in course.notebooks()}
    unknown = [lesson for lesson in lessons if lesson not in known]
    if unknown:
        sys.exit(f"No lesson {', '.join(unknown)} in notebooks/; there are: {', '.join(known)}.")
    return [known[lesson] for lesson in lessons or known]


def main() -> None:
    """Run what was asked for, in order, then print seconds and memory of each."""
    parser = argparse.ArgumentParser(description="Run the notebooks and store their outputs.")
    parser.add_argument("lessons", nargs="*", metavar="NN", help="lesson numbers; default: all")
    chosen = choose(parser.parse_args().lessons)
    os.environ.update(ENVIRONMENT)
    rows = [(path.stem, *run(path)) for path in chosen]
    print(f"\n{'notebook':<28}{'seconds':>9}{'peak MB':>9}")
    for name, seconds, memory in rows:
        print(f"{name:<28}{seconds:>9.1f}{memory:>9.0f}")


if __name__ == "__main__":
    startup.run(main)
