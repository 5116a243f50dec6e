"""The servers that `benchmarks.serving` compares: started, awaited, paused, stopped."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from helpers.models import locate
from serving.client import ServerProcess
from serving.client.engines import CommandServer

TUTORIAL, PLAIN = "tutorial (pipeline behind a lock)", "transformers serve"
PAGED, PAGED_BF16 = "transformers serve, continuous batching", "the same in bfloat16"
STATIC, STEP = "this course's, static batches", "this course's, batching at every step"
NEEDS = 'pip install "transformers[serving]"'
# Uncapped, the cache of continuous batching takes most of the machine's memory.
CAPPED = ["--continuous-batching", "--cb-num-blocks", "128", "--cb-max-batch-tokens", "512"]
SLOTS, QUEUE = 32, 64


@contextmanager
def endless(model: str) -> Iterator[Path]:
    """A copy of a model that names no end-of-text token, in a folder of its own.

    So every server has to write every text to the length asked for: equal work, with no
    parameter that only some of the servers know.
    """
    with tempfile.TemporaryDirectory(prefix="endless-") as place:
        folder = Path(place) / Path(model).name
        shutil.copytree(locate(model), folder)
        for name in ("config.json", "generation_config.json"):
            file = folder / name
            if file.is_file():
                settings = json.loads(file.read_text("utf-8")) | {"eos_token_id": None}
                file.write_text(json.dumps(settings), "utf-8")
        yield folder


class Contender:
    """A running server under its name, paused while another one is measured."""

    def __init__(self, name: str, server: CommandServer | ServerProcess) -> None:
        self.name, self.server = name, server
        server.start()
        assert server.process is not None
        self._process = psutil.Process(server.process.pid)

    @property
    def url(self) -> str:
        """Where it answers."""
        return self.server.url

    def pause(self) -> None:
        """Take the processor away from it."""
        self._process.suspend()

    def resume(self) -> None:
        """Let it go on."""
        self._process.resume()

    def stop(self) -> None:
        """End it; a paused process would not notice that it is asked to."""
        with suppress(psutil.NoSuchProcess):
            self.resume()
        self.server.stop()


def ours(folder: Path, batching: str) -> ServerProcess:
    """This course's server, with its default places whatever a local `.env` says."""
    return ServerProcess(
        batching,
        model=folder,
        batching=batching,
        device="cpu",
        slots=SLOTS,
        queue_length=QUEUE,
        max_length_limit=200,
        request_timeout=120,
    )


def contenders(folder: Path, transformers: str) -> dict[str, CommandServer | ServerProcess]:
    """Every server, not yet started, by name and in the order of the table.

    Args:
        folder: the model, as `endless` gives it.
        transformers: the command `transformers`, of an environment that can serve.
    """
    serve = [transformers, "serve", str(folder), "--host", "127.0.0.1", "--port", "{port}"]
    serve += ["--device", "cpu", "--attn-implementation", "sdpa", "--dtype"]
    tutorial = [sys.executable, "-m", "benchmarks.tutorial_server", str(folder), "{port}"]
    return {
        TUTORIAL: CommandServer(tutorial),
        PLAIN: CommandServer([*serve, "float32"]),
        PAGED: CommandServer([*serve, "float32", *CAPPED]),
        PAGED_BF16: CommandServer([*serve, "bfloat16", *CAPPED]),
        STATIC: ours(folder, "static"),
        STEP: ours(folder, "continuous"),
    }
