"""Ways to serve the same model to 1, 8 and 32 clients, side by side. (Lesson 09.)

    python -m benchmarks.serving [--quick] [--health] [--transformers PATH]
    python -m benchmarks.serving --models smollm2-135m --servers int8 llama.cpp vllm --clients 8

`make bench` runs it and writes the tables into benchmarks/README.md; what is measured,
and how, stands there. Each finished piece (one load of one round through all servers) is kept
in build/benchmarks/; a run does what is still missing, and `--tables` only writes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from benchmarks import health, servers, serving_tables, store
from benchmarks.servers import NAMES, Contender, Entry
from benchmarks.store import Store
from benchmarks.tables import Sample
from serving.client import ServerError
from serving.client.load_test import Load, Report, bodies, run
from system import startup

MODELS = ("course-gpt-16m", "smollm2-135m")
KINDS: dict[str, dict[str, Any]] = {
    "equal": {"min_tokens": 48, "max_tokens": 48},
    "mixed": {"min_tokens": 8, "max_tokens": 128, "skewed": True},
}
CLIENTS = {1: 3, 8: 16, 32: 64}  # clients → requests of one load, over all clients
LARGE = 200e6  # bytes of weights from which 32 clients of a serial server would wait too long
Piece = tuple[int, str, list[str]]  # round, load, servers
FACTS = ("flask", "waitress", "ctranslate2", "xllamacpp")


def loads(quick: bool = False) -> dict[str, Load]:
    """Every load, by the heading of its column."""
    found = {}
    for kind, lengths in KINDS.items():
        for clients, requests in CLIENTS.items():
            if quick:
                requests, lengths = clients, lengths | {"max_tokens": 16, "min_tokens": 8}
                if kind == "equal":
                    lengths["min_tokens"] = 16
            load = Load("", requests=requests, clients=clients, timeout=600, **lengths)
            found[f"{kind}, {clients}"] = load
    return found


def check(report: Report) -> None:
    """Every request answered, with every token that was asked for.

    Raises:
        RuntimeError: a server did less work than the others; its figures mean nothing.
    """
    asked = sorted(body["max_tokens"] for body in bodies(report.load, ""))
    written = sorted(result.tokens for result in report.results)
    if errors := report.summary()["errors"]:
        raise RuntimeError(f"requests failed: {errors}")
    if written != asked:
        raise RuntimeError(f"{sum(asked)} tokens were asked for, {sum(written)} were written")


def greedy_text(url: str, model: str) -> str:
    """One text without sampling: it shows that two servers run the same model."""
    body = {"model": model, "prompt": health.PROMPT, "max_tokens": 24, "temperature": 0}
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=120, trust_env=False)
    return str(answer.raise_for_status().json()["choices"][0]["text"])


def asked_of(entry: Entry, contender: Contender, load: Load) -> Load:
    """The load as this server is to be sent it."""
    parameters = {"temperature": 0} | entry.parameters
    return replace(load, url=contender.url, model=entry.model, parameters=parameters)


def start(
    entries: dict[str, Entry], stack: ExitStack
) -> tuple[dict[str, Contender], dict[str, str]]:
    """Start and warm up every server: those that run, paused, and why others do not."""
    running, missing, texts = {}, {}, {}
    for key, entry in tqdm(entries.items(), "starting", unit="server", file=sys.stderr):
        try:
            contender = Contender(NAMES[key], entry.make())
        except (ServerError, OSError) as error:
            if not entry.optional:
                raise
            # without the path
            missing[key] = str(error.strerror if isinstance(error, OSError) else error)
            continue
        stack.callback(contender.stop)
        if entry.exact:
            texts[key] = greedy_text(contender.url, entry.model)
        for clients in CLIENTS:
            if not (entry.serial and clients > 8):
                warm = Load("", requests=clients, clients=clients, min_tokens=4, max_tokens=8)
                check(run(asked_of(entry, contender, warm)))
        contender.pause()
        running[key] = contender
    if len(set(texts.values())) > 1:
        raise RuntimeError(f"servers of the same weights wrote different greedy texts: {texts}")
    return running, missing


def measure(
    running: dict[str, Contender],
    entries: dict[str, Entry],
    pieces: list[Piece],
    keep: Store,
    model: str,
    quick: bool = False,
) -> None:
    """Each piece: its load on its servers, one right after the other.

    Raises:
        RuntimeError: a server failed that is not optional; others are left out from then on.
    """
    every = loads(quick)
    requests = sum(every[load].requests * len(keys) for _, load, keys in pieces)
    with tqdm(total=requests, unit="request", file=sys.stderr) as bar:
        for number, load, keys in pieces:
            done = {}
            for key in keys:
                bar.set_description(f"{load}: {NAMES[key]}"[:40])
                if key not in running:
                    continue
                contender, entry = running[key], entries[key]
                contender.resume()
                asked = asked_of(entry, contender, replace(every[load], seed=number))
                try:
                    check(report := run(asked, bar.update))
                except (RuntimeError, httpx.HTTPError) as error:
                    if not entry.optional:
                        raise
                    keep.put(("missing", model, key), f"under {load}: {error}")
                    running.pop(key).stop()
                    continue
                done[key] = Sample.of(report.summary(), contender.resident)
                contender.pause()
            for key, sample in done.items():
                keep.put(("serving", model, key, load, number), asdict(sample))


def planned(
    given: argparse.Namespace, entries: dict[str, Entry], large: bool, keep: Store, model: str
) -> list[Piece]:
    """The pieces that are asked for and not there, of these servers."""
    pieces = []
    for number in range(given.rounds):
        for kind in given.lengths:
            for clients in given.clients:
                load = f"{kind}, {clients}"
                keys = [k for k, e in entries.items() if not (large and e.serial and clients > 8)]
                there = [("serving", model, key, load, number) in keep for key in keys]
                if given.again or not all(there):
                    pieces.append((number, load, keys))
    return pieces


def run_model(given: argparse.Namespace, model: str, keep: Store) -> None:
    """All that is asked for of one model."""
    name = Path(model).name
    with servers.endless(model) as folder, ExitStack() as stack:
        large = sum(file.stat().st_size for file in folder.glob("*.safetensors")) > LARGE
        entries = servers.contenders(folder, given.transformers)
        entries = {key: entry for key, entry in entries.items() if key in given.servers}
        if large:  # what static batches cost, the small model shows
            entries.pop("static", None)
        if not planned(given, entries, large, keep, name):
            return
        running, missing = start(entries, stack)
        for key in entries:
            keep.put(("missing", name, key), missing.get(key, ""))
        pieces = planned(given, {key: entries[key] for key in running}, large, keep, name)
        measure(running, entries, pieces, keep, name, given.quick)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """What is asked for on the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME")
    parser.add_argument("--servers", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME",
                        help=f"of {', '.join(NAMES)}")  # fmt: skip
    parser.add_argument("--clients", nargs="+", type=int, choices=CLIENTS, default=list(CLIENTS))
    parser.add_argument("--lengths", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--again", action="store_true", help="measure anew what is there")
    parser.add_argument("--quick", action="store_true", help="to see that all works: one round "
                        "of short texts; nothing is kept or written")  # fmt: skip
    parser.add_argument("--health", action="store_true", help="only the time of /health")
    parser.add_argument("--tables", action="store_true", help="only write the tables")
    beside = Path(sys.executable).with_name("transformers")
    default = str(beside) if beside.exists() else shutil.which("transformers") or "transformers"
    parser.add_argument(
        "--transformers", default=default, metavar="PATH", help=f"its command; {servers.NEEDS}"
    )
    given = parser.parse_args(argv)
    if given.rounds < 1:
        parser.error("--rounds is at least 1")
    given.rounds = 1 if given.quick else given.rounds
    return given


def run_all(given: argparse.Namespace, keep: Store) -> None:
    """All that is asked for."""
    if not given.health:
        for model in given.models:
            run_model(given, model, keep)
    key = "health", Path(given.models[0]).name
    if given.health or (given.servers == list(NAMES) and (given.again or key not in keep)):
        with servers.endless(given.models[0]) as folder:
            keep.put(key, health.times(folder, 20 if given.quick else 100))


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and (unless it is quick) write into the README; 1 where it had to stop."""
    given = arguments(argv)

    def measure(keep: Store) -> None:
        if not given.tables:
            run_all(given, keep)

    facts = store.machine(*FACTS)
    return store.run("serving", facts, measure, serving_tables.report, quick=given.quick)


if __name__ == "__main__":
    startup.run(main)
