"""The servers that `benchmarks.serving` compares: started, awaited, paused, stopped."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from helpers.models import locate, models_folder
from serving.client import ServerProcess
from serving.client.engines import CommandServer, llama_cpp, vllm
from serving.config import Config

Server = CommandServer | ServerProcess
NEEDS = 'pip install "transformers[serving]"'
# Uncapped, the cache of continuous batching takes most of the machine's memory.
CAPPED = ["--continuous-batching", "--cb-num-blocks", "128", "--cb-max-batch-tokens", "512"]
SLOTS, QUEUE = 32, 64
CONTEXT = 256  # tokens of a text for servers that must be told: more than any load asks for
STARTING = 300  # seconds: vLLM takes a minute

# By the names that `--servers` takes; the values head the rows of the tables.
NAMES = {
    "tutorial": "tutorial (pipeline behind a lock)",
    "transformers": "transformers serve",
    "transformers-batching": "transformers serve, continuous batching",
    "transformers-bf16": "the same in bfloat16",
    "llama.cpp": "llama.cpp's server, 4 bits",
    "vllm": "vLLM, bfloat16",
    "static": "this course's, static batches",
    "fp32": "this course's, batching at every step",
    "bf16": "this course's, DTYPE=bfloat16",
    "int8": "this course's, DTYPE=int8",
    "ct2-fp32": "this course's, ENGINE=ctranslate2",
    "ct2-int8": "this course's, ENGINE=ctranslate2, DTYPE=int8",
}
TUTORIAL, PAGED = NAMES["tutorial"], NAMES["transformers-batching"]
STATIC, STEP = NAMES["static"], NAMES["fp32"]
OURS = [NAMES[key] for key in ("fp32", "bf16", "int8", "ct2-fp32", "ct2-int8")]
LLAMA, RIVALS = NAMES["llama.cpp"], [NAMES["llama.cpp"], NAMES["vllm"]]


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


@dataclass(frozen=True)
class Entry:
    """A server of the comparison, not started.

    Attributes:
        make: gives it; a `ServerError` says why it cannot run here.
        model: as its requests name the model; "" asks the server.
        parameters: what its requests carry beside those of all.
        exact: it computes in float32 with the model's own weights: all such servers write the
            same greedy text.
        optional: the comparison goes on without it, where it does not start.
        serial: it writes one text at a time: with a large model, 32 clients wait for minutes.
    """

    make: Callable[[], Server]
    model: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    exact: bool = False
    optional: bool = False
    serial: bool = False


class Contender:
    """A running server under its name, paused while another one is measured."""

    def __init__(self, name: str, server: Server) -> None:
        self.name, self.server = name, server
        server.start(timeout=STARTING)
        assert server.process is not None
        self._process = psutil.Process(server.process.pid)

    @property
    def url(self) -> str:
        """Where it answers."""
        return self.server.url

    def _all(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return [self._process, *self._process.children(recursive=True)]
        return []

    def pause(self) -> None:
        """Take the processor away from it and from what it has started."""
        for process in self._all():
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def resume(self) -> None:
        """Let it go on."""
        for process in self._all():
            with suppress(psutil.NoSuchProcess):
                process.resume()

    @property
    def resident(self) -> int:
        """Bytes of memory that it takes with what it has started."""
        total = 0
        for process in self._all():
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total

    def stop(self) -> None:
        """End it; a paused process would not notice that it is asked to."""
        self.resume()
        self.server.stop()


def ours(folder: Path, name: str = "server", **settings: Any) -> ServerProcess:
    """This course's server, with its default places whatever a local `.env` says.

    Args:
        folder: the model.
        name: of the process; another one of the same name would end it.
        **settings: that differ from the defaults.
    """
    common = {"device": "cpu", "dtype": "float32", "slots": SLOTS, "queue_length": QUEUE}
    common |= {"max_length_limit": 200, "request_timeout": 300}
    return ServerProcess(name, model=folder, **common | settings)


def _transformers(folder: Path, command: str) -> dict[str, Entry]:
    serve = [command, "serve", str(folder), "--host", "127.0.0.1", "--port", "{port}"]
    serve += ["--device", "cpu", "--attn-implementation", "sdpa", "--dtype"]

    def entry(*options: str, **facts: Any) -> Entry:
        server = partial(CommandServer, [*serve, *options])
        return Entry(server, str(folder), optional=True, **facts)

    return {
        "transformers": entry("float32", exact=True, serial=True),
        "transformers-batching": entry("float32", *CAPPED, exact=True),
        "transformers-bf16": entry("bfloat16", *CAPPED),
    }


def contenders(folder: Path, transformers: str) -> dict[str, Entry]:
    """Every server that can have this model, by key and in the order of the tables.

    Args:
        folder: the model, as `endless` gives it.
        transformers: the command `transformers`, of an environment that can serve.
    """
    model, tutorial = str(folder), [sys.executable, "-m", "benchmarks.tutorial_server"]
    whole = {"ignore_eos": True}  # llama.cpp reads its own file, which names an end

    def course(key: str, exact: bool = False, optional: bool = False, **settings: str) -> Entry:
        server = partial(ours, folder, key, **settings)
        return Entry(server, model, exact=exact, optional=optional)

    found = {
        "tutorial": Entry(
            partial(CommandServer, [*tutorial, model, "{port}"]), model, exact=True, serial=True
        ),
        **_transformers(folder, transformers),
        "llama.cpp": Entry(
            partial(llama_cpp, folder.name, SLOTS, CONTEXT), parameters=whole, optional=True
        ),
        "vllm": Entry(partial(vllm, model, SLOTS, CONTEXT), parameters=whole, optional=True),
        "static": course("static", True, batching="static"),
        "fp32": course("fp32", True),
        "bf16": course("bf16", dtype="bfloat16"),
        "int8": course("int8", optional=True, dtype="int8"),
    }
    if not (models_folder() / f"{folder.name}.gguf").is_file():
        del found["llama.cpp"]
    if "engine" in Config.model_fields:
        fast: dict[str, Any] = {
            "engine": "ctranslate2",
            "engine_cache": str(folder.parent / "converted"),
        }
        found["ct2-fp32"] = course("ct2-fp32", optional=True, **fast)
        found["ct2-int8"] = course("ct2-int8", optional=True, **fast, dtype="int8")
    return found
