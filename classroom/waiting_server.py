"""The course's server on an accelerator that is not there: each step waits. (Lesson 10.)

    python -m classroom.waiting_server --wait-ms 40 --port 5000

The model computes as always; then every decode step lasts `wait-ms` longer, in which the processor
is idle, as it is while a GPU computes. So several of these servers on one machine show what as
many GPUs would do. Settings are those of `python -m serving`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from serving import __main__ as service
from serving.client.engines import CommandServer
from serving.engine.runner import ModelRunner
from system import startup


def slow_down(seconds: float) -> None:
    """From now on every decode step of this process's engine takes so much longer."""
    decode = ModelRunner.decode

    def step(self: ModelRunner) -> None:
        decode(self)
        time.sleep(seconds)

    ModelRunner.decode = step  # type: ignore[method-assign]


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl+C; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m classroom.waiting_server")
    parser.add_argument("--wait-ms", type=float, default=40, help="of every step, 0 to 10000")
    given, rest = parser.parse_known_args(argv)
    if not 0 <= given.wait_ms <= 10_000:
        print(f"--wait-ms {given.wait_ms:g} must be from 0 to 10000", file=sys.stderr)
        return 2
    slow_down(given.wait_ms / 1000)
    return service.main(rest)


def replica(model: str, wait_ms: float = 0.0, **settings: object) -> CommandServer:
    """A server that is not running yet, on a port of its own.

    Args:
        model: as `helpers.load` takes it.
        wait_ms: milliseconds that each step waits; 0 is the course's server as it is.
        **settings: any setting of `serving.config.Config`, such as slots=4.
    """
    command = [sys.executable, "-m", f"{__package__}.{Path(__file__).stem}"]
    command += ["--wait-ms", str(wait_ms), "--model", model, "--port", "{port}"]
    variables = {f"LLM_{name.upper()}": str(value) for name, value in settings.items()}
    return CommandServer(command, {"LLM_HOST": "127.0.0.1"} | variables)


if __name__ == "__main__":
    status = startup.exit_status(main)
    import os

    os._exit(status)
