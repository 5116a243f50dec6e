"""Engines × batches × models: tokens a second side by side, without HTTP. (Lesson 08.)

    python -m benchmarks.inference [--models NAME …] [--engines NAME …] [--batches N …]

Of each model all engines are loaded, each in a process of its own; a round takes every batch
through all of them, one right after the other. Each finished piece (one batch of one round) is
kept in build/benchmarks/; a run does what is still missing, and writes its tables into
benchmarks/README.md. `gpt2-shape` has gpt2's configuration and random weights: for its speed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import store, tables
from benchmarks.engines import EXACT, NAMES, EngineError, Worker, convert_all
from benchmarks.shape import SHAPE, files_of, weights_of
from benchmarks.store import Store
from helpers.isolated import ChildFailed, run_isolated
from system import startup

MODELS = ("course-gpt-1m", "course-gpt-4m", "course-gpt-16m", "smollm2-135m", SHAPE)
BATCHES = (1, 4, 8, 16, 32)
COMPARED = 8  # tokens of the texts that engines in float32 must have in common


def bandwidth() -> float:
    """Bytes a second that all threads read from memory: the best of five sums of 256 MB."""
    import torch

    numbers, best = torch.ones(2**26), float("inf")
    for _ in range(5):
        began = time.perf_counter()
        numbers.sum()
        best = min(best, time.perf_counter() - began)
    return numbers.nbytes / best


def start(engines: list[str], folder: Path, stack: ExitStack) -> tuple[dict[str, Worker], str]:
    """Start the engines together; those that run, and why others do not."""
    workers, why = {engine: Worker(engine, folder) for engine in engines}, []
    for engine, worker in list(workers.items()):
        stack.callback(worker.stop)
        try:
            worker.ready()
        except EngineError as error:
            why.append(f"{NAMES[engine][0]} does not run here: {error}")
            del workers[engine]
    return workers, "\n".join(why)


def check(model: str, found: dict[str, dict[str, Any]]) -> None:
    """Engines that compute in float32 write the same text; random weights know no best token.

    Raises:
        RuntimeError: they did not: their figures are of different work.
    """
    texts = {engine: found[engine]["ids"][:COMPARED] for engine in EXACT if engine in found}
    if model != SHAPE and len({str(ids) for ids in texts.values()}) > 1:
        raise RuntimeError(f"{model}: engines in float32 wrote different texts: {texts}")


def measure(
    model: str, workers: dict[str, Worker], pieces: list[tuple[int, int]], keep: Store, bar: Any
) -> None:
    """Each piece, (round, batch), on all engines; the first one chooses how many steps."""
    for number, batch in pieces:
        found: dict[str, dict[str, Any]] = {}
        for engine, worker in workers.items():
            bar.set_description(f"{model}, {batch}: {engine}"[:40])
            steps = next(iter(found.values()))["steps"] if found else 0
            found[engine] = worker.measure(batch, steps)
            bar.update()
        check(model, found)
        for engine, of in found.items():
            value = {"seconds": of["seconds"], "resident": of["resident"]}
            keep.put(("engine", model, engine, batch, number), value)


def run_model(given: argparse.Namespace, model: str, keep: Store, bar: Any) -> None:
    """All that is asked for of one model and not there yet."""
    pieces = [
        (number, batch)
        for number in range(given.rounds)
        for batch in given.batches
        if given.again
        or not all(("engine", model, engine, batch, number) in keep for engine in given.engines)
    ]
    bar.update(len(given.engines) * (given.rounds * len(given.batches) - len(pieces)))
    if not pieces:
        return
    with files_of(model) as folder, ExitStack() as stack:
        bar.set_description(f"{model}: starting"[:40])
        engines, missing = list(given.engines), ""
        if any(engine.startswith("ct2") for engine in engines):
            try:
                run_isolated(convert_all, folders=[str(folder)])
            except ChildFailed as error:
                missing = f"CTranslate2 does not run here: {error}"
                engines = [engine for engine in engines if not engine.startswith("ct2")]
        workers, why = start(engines, folder, stack)
        keep.put(("model", model, "missing"), "\n".join(filter(None, [missing, why])))
        keep.put(("model", model, "weights"), weights_of(folder))
        keep.put(("model", model, "bandwidth"), bandwidth())
        measure(model, workers, pieces, keep, bar)


def best_bandwidth(keep: Store) -> float:
    """The most of what was measured beside the models: noise only takes away."""
    found = [value for key, value in keep.under("model").items() if key[-1] == "bandwidth"]
    return float(max(found))


def table(keep: Store, model: str) -> str:
    """One model: a row for each engine, a column for each batch, the limit and the memory."""
    found: dict[str, dict[int, dict[int, dict[str, float]]]] = {}
    for (engine, batch, number), value in keep.under("engine", model).items():
        found.setdefault(str(engine), {}).setdefault(int(batch), {})[int(number)] = value
    batches = sorted({batch for of in found.values() for batch in of})
    limit = best_bandwidth(keep)
    lines = []
    for engine in (engine for engine in NAMES if engine in found):
        name, size = NAMES[engine]
        seconds = {b: {n: v["seconds"] for n, v in of.items()} for b, of in found[engine].items()}
        line = [name]
        for batch in batches:
            base = {n: v["seconds"] for n, v in found.get("pipeline", {}).get(batch, {}).items()}
            if batch not in seconds:
                line.append("–")
                continue
            tokens = batch / statistics.median(seconds[batch].values())
            share = tables.median_ratio(base, seconds[batch])
            line.append(tables.cell(tokens, share, "{:.0f}".format))
        least = min(seconds)
        reading = keep["model", model, "weights"] * size / limit
        line.append(f"{100 * reading / statistics.median(seconds[least].values()):.0f} %")
        resident = max(v["resident"] for of in found[engine].values() for v in of.values())
        lines.append([*line, f"{resident / 1e6:.0f}"])
    heads = ["tokens/s at batch", *map(str, batches), f"of the limit, {batches[0]}", "resident MB"]
    text = f"**`{model}`**\n\n{tables.rows(heads, lines)}"
    missing = keep["model", model, "missing"]
    return f"{text}\n\n{missing}" if missing else text


def report(keep: Store) -> str:
    """All that was measured."""
    there = {str(key[0]) for key in keep.under("engine")}
    parts = [keep.measured()]
    if there:
        rounds = 1 + max(int(key[-1]) for key in keep.under("engine"))
        parts.append(
            f"Medians of rounds: {rounds}; in brackets the ratio to the pipeline. Memory "
            f"bandwidth, the best that was measured: {best_bandwidth(keep) / 1e9:.1f} GB/s."
        )
    known = [*MODELS, *sorted(there - set(MODELS))]
    return "\n\n".join([*parts, *(table(keep, model) for model in known if model in there)])


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and (unless it is quick) write into the README; 1 where it had to stop."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inference", description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME",
                        help=f"of {', '.join(MODELS)}, or any other")  # fmt: skip
    parser.add_argument("--engines", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME",
                        help=f"of {', '.join(NAMES)}")  # fmt: skip
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES), metavar="ROWS")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--again", action="store_true", help="measure anew what is there")
    parser.add_argument("--quick", action="store_true", help="keep and write nothing")
    parser.add_argument("--tables", action="store_true", help="only write the tables")
    given = parser.parse_args(argv)
    if given.rounds < 1:
        parser.error("--rounds is at least 1")
    if not all(1 <= batch <= 32 for batch in given.batches):
        parser.error("--batches are from 1 to 32")
    models = [] if given.tables else given.models

    def measure(keep: Store) -> None:
        total = len(models) * len(given.engines) * len(given.batches) * given.rounds
        with tqdm(total=total, unit="cell", file=sys.stderr) as bar:
            for model in models:
                run_model(given, model, keep, bar)

    facts = store.machine("ctranslate2")
    return store.run("inference", facts, measure, report, quick=given.quick)


if __name__ == "__main__":
    startup.run(main)
