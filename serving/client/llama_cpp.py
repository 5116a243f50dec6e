"""llama.cpp's own HTTP server on a GGUF file: `python -m serving.client.llama_cpp FILE`.

The package xllamacpp holds llama.cpp as a library; its server runs in threads of this process.
(Lesson 10.)
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from system import startup
from system.child import end_with_parent
from system.machine import processors


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl+C; exit status 1 where the file cannot be served."""
    end_with_parent()
    parser = argparse.ArgumentParser(prog="python -m serving.client.llama_cpp")
    parser.add_argument("file", type=Path, help="the model, a GGUF file")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--slots", type=int, default=8, help="texts written at the same time")
    parser.add_argument("--context", type=int, default=1024, help="tokens each of them may have")
    given = parser.parse_args(argv)
    try:
        import xllamacpp
    except ImportError:
        print("llama.cpp is not installed: pip install xllamacpp", file=sys.stderr)
        return 1
    ask = xllamacpp.CommonParams()
    ask.model.path = str(given.file)
    ask.model_alias = {given.file.stem}
    ask.port = given.port  # on 127.0.0.1, as it comes
    ask.n_parallel, ask.n_ctx = given.slots, given.slots * given.context  # shared by all slots
    ask.cpuparams.n_threads = max(1, round(processors()))
    ask.endpoint_metrics, ask.cache_ram_mib = True, 0  # else up to 8 GiB of prompts read before
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        server = xllamacpp.Server(ask)
    except (RuntimeError, ValueError) as error:
        print(f"{given.file} cannot be served: {error}", file=sys.stderr)
        return 1
    print(f"Serving {given.file.stem} with llama.cpp at {server.listening_address}", flush=True)
    while not stop.wait(1.0):
        pass
    return 0


if __name__ == "__main__":
    startup.run(main)
