"""Processes that we start: a Ctrl+C meant for us does not end them, our own end does.

Jupyter's ■ and Ctrl+C at a terminal signal a whole process group, so a child gets a group
(and session) of its own. What it gains by that it would lose by outliving a notebook that
was killed: it watches its parent. (Lesson 06's server, lessons 04 and 05's measurements.)

    python -m system.child MODULE ARGUMENTS…

runs a module that is not ours (JupyterLab, vLLM) as `python -m` would, and watches for it.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import psutil

from system import startup

_PARENT = "LLM_BASICS_PARENT"
_LOOK_SECONDS = 0.5


def own_session(environment: dict[str, str]) -> dict[str, Any]:
    """Arguments for `subprocess.Popen` that start a child which calls `end_with_parent`.

    Args:
        environment: the child's environment variables.
    """
    started = {"env": environment | {_PARENT: str(os.getpid())}}
    if os.name == "nt":
        return started | {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    return started | {"start_new_session": True}


def start_child(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """`subprocess.Popen`, which an interrupt (■, Ctrl+C) does not tear in two.

    Between a child's start and the moment in which its parent knows of it, an interrupt would
    leave it running with nobody to end it. Interrupts reach the main thread alone, so another
    one starts the child; a child that is not wanted any more is ended before the interrupt goes on.

    Args:
        command: its words.
        **options: as `subprocess.Popen` takes them.

    Raises:
        OSError: as `subprocess.Popen`.
    """
    found: list[subprocess.Popen[bytes] | BaseException] = []
    done = threading.Event()

    def start() -> None:
        try:
            found.append(subprocess.Popen(command, **options))
        except BaseException as error:
            found.append(error)
        finally:
            done.set()

    try:
        threading.Thread(target=start, daemon=True, name="start-child").start()
        done.wait()
    except KeyboardInterrupt:
        done.wait()
        if not isinstance(found[0], BaseException):
            found[0].kill()
            found[0].wait()
        raise
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def end_with_parent(pid: int | None = None) -> None:
    """From now on, end this process and all that it started soon after its parent has ended.

    However the parent went: nothing that it would have to do itself is waited for. Without
    a parent that asked for it (see `own_session`) nothing happens.

    Args:
        pid: the parent's process number; None takes what `own_session` passed.
    """
    passed = os.environ.pop(_PARENT, "")  # not for this process's own children
    if pid is None and passed.isdecimal():
        pid = int(passed)
    if pid is not None:
        threading.Thread(target=_watch, args=(pid,), daemon=True, name="parent-watch").start()


def end_children(process: psutil.Process) -> None:
    """Kill what the process has started, and what that has started."""
    with suppress(psutil.NoSuchProcess):
        for child in process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()


def _watch(pid: int) -> None:
    """Look every half second: works alike on Linux, macOS and Windows, whoever forked us."""
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
            time.sleep(_LOOK_SECONDS)
    end_children(psutil.Process())
    os._exit(1)


def main() -> None:
    """Run the module that is named, watching for it."""
    end_with_parent()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    startup.run(main)
