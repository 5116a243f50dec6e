"""Run one function in a fresh process: its memory starts from nothing. (Lessons 04 and 05.)

    def after_loading(name):
        import helpers
        from helpers.monitor import get_memory_usage
        helpers.load(name)
        return get_memory_usage()

    run_isolated(after_loading, name="course-gpt-4m")

A process never gives all of its memory back, so two models measured in one process
spoil each other's figures; and a process that runs out of memory dies, here without
taking the caller along.
"""

from __future__ import annotations

import gc
import importlib
import inspect
import json
import os
import signal
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from system.child import end_with_parent, own_session
from system.environment import ROOT
from system.errors import ParameterError, see


class ChildFailed(RuntimeError):
    """The function gave no result.

    Attributes:
        kind: "error" (it raised), "out of memory", "killed" or "timeout".
    """

    def __init__(self, kind: str, reason: str) -> None:
        self.kind = kind
        super().__init__(reason)


def run_isolated(
    function: Callable[..., Any],
    timeout_s: float = 600.0,
    memory_limit_mb: float | None = None,
    **arguments: Any,
) -> Any:
    """Call `function(**arguments)` in a fresh Python process.

    Args:
        function: of a module, or defined in a notebook; the latter must import inside
            itself what it uses, because only its source travels.
        timeout_s: seconds until the process is killed.
        memory_limit_mb: the most memory (MB) that the process may take beyond what
            Python, torch and transformers take; Linux only.
        **arguments: anything that JSON can hold.

    Returns:
        what the function returned, by way of JSON (tuples become lists).

    Raises:
        ChildFailed: it raised, ran out of memory, was killed or took too long.
        ParameterError: a limit out of range, or arguments that JSON cannot hold.
    """
    if timeout_s <= 0:
        raise ParameterError("timeout_s", timeout_s, "above 0 seconds")
    if memory_limit_mb is not None and memory_limit_mb <= 0:
        raise ParameterError("memory_limit_mb", memory_limit_mb, "above 0 MB")
    job = {**_where(function), "arguments": arguments, "memory_limit_mb": memory_limit_mb}
    try:
        message = json.dumps(job)
    except TypeError as error:
        raise ParameterError("arguments", arguments, f"values for JSON ({error})") from None
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    try:
        child = subprocess.run(
            [sys.executable, "-m", "helpers.isolated"],
            input=message,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            **own_session(os.environ | {"PYTHONPATH": os.pathsep.join(p for p in paths if p)}),
        )
    except subprocess.TimeoutExpired:
        raise ChildFailed("timeout", f"took longer than {timeout_s:g} s") from None
    return _answer(child)


def _where(function: Callable[..., Any]) -> dict[str, str]:
    """How the child finds the function: by its module, or as source if a notebook holds it."""
    if function.__module__ == "__main__":
        source = textwrap.dedent(inspect.getsource(function))
        return {"name": function.__name__, "source": source}
    return {"name": function.__name__, "module": function.__module__}


def _answer(child: subprocess.CompletedProcess[str]) -> Any:
    """The result in the child's output, or the error that says why there is none."""
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        out_of_memory = f": the system does this when memory runs out. {see('memory')}"
        hint = out_of_memory if name == "SIGKILL" else ""
        raise ChildFailed("killed", f"the process was killed by {name}{hint}")
    try:
        answer = json.loads(child.stdout)
    except json.JSONDecodeError:
        last = (child.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ChildFailed("error", f"the process ended with {child.returncode}: {last}") from None
    if "error" in answer:
        raise ChildFailed(answer["kind"], answer["error"])
    return answer["result"]


def limit_memory(more_mb: float) -> None:
    """From now on, give this process at most so much more private memory (Linux only).

    Allocations beyond it fail as on a machine whose memory is used up. Pages of mapped
    files do not count. There is no way back: call it in a process of its own.

    Args:
        more_mb: MB (10⁶ bytes) above what the process has now.

    Raises:
        ParameterError: not above 0, or another system than Linux.
    """
    if more_mb <= 0:
        raise ParameterError("more_mb", more_mb, "above 0 MB")
    if not sys.platform.startswith("linux"):
        raise ParameterError("more_mb", more_mb, "left out: only Linux can limit memory so")
    import resource

    status = Path("/proc/self/status").read_text(encoding="utf-8")
    now = int(status.split("VmData:")[1].split()[0]) * 1024
    limit = now + int(more_mb * 1e6)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def start_libraries() -> None:
    """Import the model libraries and start torch's threads, so that a model's cost is its own.

    They make about a million objects that stay. Python's garbage collector leaves them alone:
    looking through them again and again takes a sixth of the time, and later falls into
    measurements. For a fresh process: what is garbage at that moment stays, too.
    """
    gc.disable()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline  # noqa: F401

    gc.freeze()
    gc.enable()
    torch.mm(torch.ones(300, 300), torch.ones(300, 300))


def _main() -> None:
    """The child: one job from standard input, one answer to standard output.

    Whatever the function prints goes to standard error, where it cannot mix with the answer.
    """
    end_with_parent()
    job = json.load(sys.stdin)
    answer_to = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        if job["memory_limit_mb"] is not None:
            start_libraries()
            limit_memory(job["memory_limit_mb"])
        if "source" in job:
            namespace: dict[str, Any] = {}
            exec(job["source"], namespace)  # the caller's own function, sent as text
            function = namespace[job["name"]]
        else:
            function = getattr(importlib.import_module(job["module"]), job["name"])
        text = json.dumps({"result": function(**job["arguments"])})
    except BaseException as error:
        traceback.print_exc()
        text = json.dumps({"error": _one_line(error), "kind": _kind(error)})
    with answer_to:
        answer_to.write(text)


def _kind(error: BaseException) -> str:
    """Whether memory ran out, by the error's type or words."""
    from system.errors import OutOfMemoryError, is_out_of_memory

    no_memory = isinstance(error, OutOfMemoryError) or is_out_of_memory(error)
    no_stack = "can't start new thread" in str(error)  # a thread's stack is memory too
    return "out of memory" if no_memory or no_stack else "error"


def _one_line(error: BaseException) -> str:
    """Type and first line of an error."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}".rstrip(": ")


if __name__ == "__main__":
    _main()
