"""A server as `python -m serving` starts it, with faults that a test plants while it runs.

    python -m tests.serving.drilled FOLDER

Files in FOLDER say what is wrong: `step` holds "memory" (the next decoding step finds none),
"broken" (every step fails); `clock` the seconds by which the wall clock is ahead.
"""

from __future__ import annotations

import runpy
import sys
import time
from pathlib import Path
from typing import Any

folder = Path(sys.argv.pop(1))
real_time = time.time


def planted(name: str) -> str:
    path = folder / name
    return path.read_text() if path.is_file() else ""


def jumping_time() -> float:
    return real_time() + float(planted("clock") or 0)


def main() -> None:
    time.time = jumping_time  # before anything else has it under a name of its own
    from serving.engine.runner import ModelRunner

    decode = ModelRunner.decode

    def faulty(runner: Any) -> None:
        fault = planted("step")
        if fault == "memory":
            (folder / "step").unlink()
            raise MemoryError("planted: out of memory")
        if fault == "broken":
            raise RuntimeError("planted: this step fails")
        decode(runner)

    setattr(ModelRunner, "decode", faulty)  # noqa: B010
    runpy.run_module("serving", run_name="__main__")


if __name__ == "__main__":
    main()
