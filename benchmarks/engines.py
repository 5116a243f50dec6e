"""The engines that `benchmarks.inference` compares, each in a process of its own. (Lesson 08.)

    python -m benchmarks.engines ENGINE FOLDER

Such a process loads the model and says so in a line of JSON; then it reads one line for each
measurement and answers it with one. Between them it waits and takes no processor time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from system import startup
from system.child import end_with_parent, own_session
from system.environment import ROOT

# By the names that `--engines` takes: how the tables name each, and the bytes of a weight.
NAMES = {
    "pipeline": ("transformers' pipeline, float32", 4),
    "fp32": ("the service's engine, float32", 4),
    "bf16": ("the service's engine, bfloat16", 2),
    "int8": ("the service's engine, int8", 1),
    "ct2-fp32": ("CTranslate2, float32", 4),
    "ct2-int8": ("CTranslate2, int8", 1),
}
EXACT = ("pipeline", "fp32", "ct2-fp32")  # they compute in float32: the same greedy text
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}
PROMPT = "Machine learning is"
MOST_ROWS = 32
SECONDS, LEAST, MOST = 0.5, 16, 96  # a measurement lasts so long, but has so many steps
LIMIT = 12.0  # seconds of one measurement, whatever the steps that are asked for
Writer = Callable[[int, int], list[int]]  # (rows, new tokens) → the ids of the first row


class EngineError(RuntimeError):
    """An engine that does not run here; the message holds what it said."""


def pipeline_writer(folder: str) -> Writer:
    """What tutorials call: a transformers pipeline, with a batch of equal prompts."""
    from transformers import pipeline

    from helpers.models import load_model

    model, tokenizer = load_model(folder, "cpu", "float32")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    generator = pipeline("text-generation", model=model, tokenizer=tokenizer)

    def write(rows: int, tokens: int) -> list[int]:
        answers = generator(
            [PROMPT] * rows, batch_size=rows, max_new_tokens=tokens, do_sample=False,
            return_tensors=True,
        )  # fmt: skip
        return list(answers[0][0]["generated_token_ids"][-tokens:])

    return write


def service_writer(folder: str, dtype: str) -> Writer:
    """The service's own engine on torch, without HTTP around it."""
    from helpers.settings import GenerationSettings
    from serving.engine.engine import Engine
    from serving.engine.jobs import Job
    from serving.engine.loading import load_for_engine

    model, tokenizer = load_for_engine(folder, "cpu", dtype, MOST_ROWS)
    engine, prompt = Engine(model, tokenizer, MOST_ROWS), tokenizer(PROMPT)["input_ids"]
    engine.start()

    def write(rows: int, tokens: int) -> list[int]:
        job = Job(600, ignore_end=True)
        for _ in range(rows):
            job.add(GenerationSettings(temperature=0), list(prompt), tokens)
        engine.submit(job)
        for _ in job.updates():
            pass
        return list(job.sequences[0].ids[len(prompt) :])

    return write


def converted_writer(folder: str, number_format: str) -> Writer:
    """CTranslate2 as its own documentation calls it, on what `convert_all` wrote."""
    from transformers import AutoTokenizer

    from classroom.inference import Translated

    tokenizer = AutoTokenizer.from_pretrained(folder)
    engine = Translated(converted(folder), number_format, tokenizer)
    prompt = tokenizer(PROMPT)["input_ids"]
    return lambda rows, tokens: engine.write(prompt, tokens, rows)


def converted(folder: str) -> Path:
    """Where a model's files for CTranslate2 lie."""
    return Path(folder).parent / "converted" / Path(folder).name


def convert_all(folders: list[str]) -> None:
    """Write the models for CTranslate2; for a process of its own, whose memory is given back."""
    from classroom.inference import convert

    for folder in folders:
        converted(folder).parent.mkdir(exist_ok=True)
        convert(folder, converted(folder).parent)


def load(engine: str, folder: str) -> Writer:
    """An engine of `NAMES`, ready to write."""
    import helpers  # noqa: F401 - threads and waiting as everywhere, before torch

    if engine == "pipeline":
        return pipeline_writer(folder)
    if engine in DTYPES:
        return service_writer(folder, DTYPES[engine])
    return converted_writer(folder, {"ct2-fp32": "float32", "ct2-int8": "int8"}[engine])


def measure(write: Writer, rows: int, steps: int) -> dict[str, Any]:
    """Time decoding: a text of so many steps more than one token, less that of one token.

    Args:
        write: the engine.
        rows: equal texts in the batch.
        steps: of decoding that are timed; 0 lets this engine choose. A slow one does fewer.

    Returns:
        seconds (of a step), steps, ids (first row), resident (bytes).
    """
    import psutil

    def seconds(tokens: int) -> float:
        began = time.perf_counter()
        found.extend([write(rows, tokens)])
        return time.perf_counter() - began

    found: list[list[int]] = []
    seconds(2)  # not counted: memory is taken, kernels are chosen
    one = seconds(1)
    guess = max((seconds(5) - one) / 4, 1e-6)
    steps = steps or min(max(round(SECONDS / guess), LEAST), MOST)
    steps = max(2, min(steps, int(LIMIT / guess)))
    taken = max(seconds(steps + 1) - min(one, seconds(1)), 1e-9)
    resident = psutil.Process().memory_info().rss
    ids = next(of for of in found if len(of) == steps + 1)
    return {"seconds": taken / steps, "steps": steps, "ids": ids, "resident": resident}


class Worker:
    """An engine in a process of its own, as its parent sees it."""

    def __init__(self, engine: str, folder: Path) -> None:
        """Start it; `ready` awaits it.

        Args:
            engine: a name of `NAMES`.
            folder: the model.
        """
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `stop`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.engines", engine, str(folder)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            encoding="utf-8", **own_session(dict(os.environ)),
        )  # fmt: skip

    def ready(self) -> None:
        """Wait until the model is loaded.

        Raises:
            EngineError: it ended instead.
        """
        self._answer()

    def measure(self, rows: int, steps: int) -> dict[str, Any]:
        """`measure` there.

        Raises:
            EngineError: it ended instead.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"rows": rows, "steps": steps}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return dict(json.loads(line))
        self._process.wait()
        self._log.seek(0)
        said = self._log.read().decode("utf-8", "replace").strip().splitlines()
        raise EngineError(said[-1].strip() if said else f"ended with {self._process.returncode}")

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()
        self._log.close()


def main() -> None:
    """Load, say so, and measure what is asked for, until the input ends."""
    end_with_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what libraries print cannot mix with the answers
    from serving.footprint import give_back_memory

    engine, folder = sys.argv[1:]
    write = load(engine, folder)
    give_back_memory()  # of what loading took
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        print(json.dumps(measure(write, **json.loads(line))), file=answers)


if __name__ == "__main__":
    startup.run(main)
