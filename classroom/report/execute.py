"""One notebook run by papermill, in a process of its own that may hang, crash or be ended."""

from __future__ import annotations

import contextlib
import logging
import math
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil

from classroom.report.plan import KERNEL
from system.child import end_children, end_with_parent
from system.textfiles import TextFileError, read_text

LOOK_SECONDS = 0.25  # how often the memory is looked at
LONGEST_FOLDER = 60  # characters of the temporary folder's path
SECONDS_TO_SAVE = 5  # after its kernel is gone, for papermill to write the notebook


def execute(
    source: Path,
    output: Path,
    values: dict[str, Any],
    caption: str,
    timeout: float,
    memory: float = math.inf,
    **options: Any,
) -> str:
    """Run a notebook in its own folder and write it with its outputs, cell by cell.

    Whatever happens in a cell, the call returns. That a cell raised is read from the
    written notebook.

    Args:
        source: the notebook, in UTF-8 or with a byte-order mark.
        output: where the executed one is written.
        values: parameters to set.
        caption: what stands before the progress bar over cells.
        timeout: seconds that the whole notebook may take.
        memory: bytes that the kernel and all that it starts may hold together.
        **options: papermill's and nbclient's own, such as `cwd` or `allow_errors`.

    Returns:
        Why the notebook was not run to its end, in one line; else empty.
    """
    options = {"cwd": source.resolve().parent} | options
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / "notebook.ipynb"  # papermill reads plain UTF-8 alone
        try:
            copy.write_text(read_text(source), encoding="utf-8")
        except (TextFileError, OSError) as error:
            return str(error)
        return _in_child((copy, output.resolve(), values, caption, options), timeout, memory)


def _in_child(job: tuple[Any, ...], timeout: float, memory: float) -> str:
    """Call `_run` in a process of its own, within the limits; what it sends, or why it did not.

    Args:
        job: what `_run` takes, but its way back to us.
        timeout: seconds.
        memory: bytes.
    """
    context = _context()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(*job, sender), daemon=True)
    process.start()
    sender.close()  # the child holds the other one: its end is then seen as the end of file
    try:
        end = time.monotonic() + timeout
        while not receiver.poll(max(0.0, min(LOOK_SECONDS, end - time.monotonic()))):
            if time.monotonic() >= end:
                return f"over the time limit of {timeout:g} s"
            if memory < math.inf and _held(process) > memory:
                return f"over the memory limit of {memory / 2**20:.0f} MiB"
        return str(receiver.recv())
    except EOFError:
        process.join()
        return f"its process ended with exit status {process.exitcode}"
    finally:
        _stop(process)
        receiver.close()


def _context() -> Any:
    """Fresh processes; where the system allows it, from one that has imported papermill once."""
    # The address of its socket lies in the temporary folder, and may have about 100 characters.
    room = len(tempfile.gettempdir()) <= LONGEST_FOLDER
    if "forkserver" not in multiprocessing.get_all_start_methods() or not room:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["tqdm.auto", "classroom.report.engine", "classroom.report.plan"]
    )
    return context


def _run(
    source: Path,
    output: Path,
    values: dict[str, Any],
    caption: str,
    options: dict[str, Any],
    sender: Connection,
) -> None:
    """In the child: run the notebook, then send why it did not come to its end, or nothing."""
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl+C is the parent's to handle
    if hasattr(os, "setsid"):
        os.setsid()  # nor does a closed terminal end it before it has ended its kernel
    if parent := multiprocessing.parent_process():
        end_with_parent(parent.pid)
    os.environ["LLM_BASICS_PROGRESS"] = "off"  # a report neither shows nor changes anybody's
    logging.disable()  # what matters is in the notebook and in the answer
    _quiet_kernel()
    import papermill
    from nbclient.exceptions import DeadKernelError
    from tqdm.auto import tqdm

    from classroom.report.engine import register

    tqdm.set_lock(threading.RLock())  # its own is shared by processes, and warns when one is ended

    problem = ""
    try:
        papermill.execute_notebook(
            source,
            output,
            parameters=values,
            engine_name=register(),
            kernel_name=KERNEL["name"],
            language=KERNEL["language"],
            progress_bar={"desc": caption, "disable": None, "leave": False},
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
            **options,
        )
    except papermill.PapermillExecutionError:
        pass  # raised for a traceback that is part of the lesson, too: the notebook tells
    except DeadKernelError:
        problem = "the kernel died: a crash, or no memory left"
    except Exception as error:  # whatever it is, it belongs into the report
        problem = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    sender.send(problem)


def _quiet_kernel() -> None:
    """The progress bar keeps the terminal; a kernel that is ended complains to nobody."""
    sys.stderr = os.fdopen(os.dup(2), "w")
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)


def _held(process: BaseProcess) -> int:
    """Bytes that the processes started by the child hold: the kernel and its own."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                total += child.memory_info().rss
    return total


def _stop(process: BaseProcess) -> None:
    """End the kernel and what it started; papermill then saves what there is and ends, too."""
    with contextlib.suppress(psutil.NoSuchProcess):
        end_children(psutil.Process(process.pid))
    process.join(SECONDS_TO_SAVE)
    if process.is_alive():
        process.kill()
        process.join()
        if sys.stderr.isatty():
            print(file=sys.stderr)  # its progress bar still stands there
