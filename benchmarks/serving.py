"""Six ways to serve the same model to 1, 8 and 32 clients, side by side. (Lesson 09.)

    python -m benchmarks.serving [--quick] [--health] [--transformers PATH]

`make bench` runs it and writes the tables into benchmarks/README.md; what is measured,
and how, stands there.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import replace
from http.client import HTTPConnection
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from benchmarks import servers, tables
from benchmarks.servers import PAGED, PAGED_BF16, PLAIN, STATIC, STEP, TUTORIAL, Contender
from benchmarks.tables import Sample, Samples
from serving.client import ServerError, ServerProcess
from serving.client.load_test import Load, Report, bodies, run, spread
from system import startup
from system.machine import physical_memory, processor_name, processors

README = Path(__file__).with_name("README.md")
EQUAL: dict[str, Any] = {"min_tokens": 48, "max_tokens": 48}
MIXED: dict[str, Any] = {"min_tokens": 8, "max_tokens": 128, "skewed": True}
CLIENTS = {1: 3, 8: 16, 32: 64}  # clients → requests of one load, over all clients
HEALTH_LIMIT = 0.1  # seconds
PROMPT = "Machine learning is"


def loads(quick: bool) -> dict[str, Load]:
    """Every load, by the heading of its column."""
    found = {}
    for kind, lengths in (("equal", EQUAL), ("mixed", MIXED)):
        for clients, requests in CLIENTS.items():
            if quick:
                requests, lengths = clients, lengths | {"max_tokens": 16, "min_tokens": 8}
                if kind == "equal":
                    lengths["min_tokens"] = 16
            load = Load("", requests=requests, clients=clients, timeout=300, **lengths)
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
    body = {"model": model, "prompt": PROMPT, "max_tokens": 24, "temperature": 0}
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=120, trust_env=False)
    return str(answer.raise_for_status().json()["choices"][0]["text"])


def start(folder: Path, transformers: str, stack: ExitStack) -> tuple[list[Contender], list[str]]:
    """Start and warm up every server: those that run, paused, and why others do not."""
    running, missing, texts = [], [], {}
    everyone = servers.contenders(folder, transformers)
    for name, server in tqdm(everyone.items(), "starting", unit="server", file=sys.stderr):
        try:
            contender = Contender(name, server)
        except (ServerError, OSError) as error:
            if name not in (PLAIN, PAGED, PAGED_BF16):
                raise
            why = error.strerror if isinstance(error, OSError) else error  # without the path
            missing.append(f"{name}: not measured, because it did not start ({why})")
            continue
        stack.callback(contender.stop)
        texts[name] = greedy_text(contender.url, str(folder))
        for clients in CLIENTS:
            warm = Load(contender.url, str(folder), clients, clients, min_tokens=4, max_tokens=8)
            check(run(replace(warm, parameters={"temperature": 0})))
        contender.pause()
        running.append(contender)
    different = [n for n in texts if n != PAGED_BF16 and texts[n] != texts[STEP]]
    if different:
        raise RuntimeError(f"another greedy text than the others wrote: {', '.join(different)}")
    return running, missing


def measure(running: list[Contender], todo: dict[str, Load], model: str, rounds: int) -> Samples:
    """Every load on every server, one after the other, `rounds` times over."""
    samples: Samples = defaultdict(list)
    requests = sum(load.requests for load in todo.values()) * len(running) * rounds
    with tqdm(total=requests, unit="request", file=sys.stderr) as bar:
        for number in range(rounds):
            for name, load in todo.items():
                for contender in running:
                    bar.set_description(f"{name}: {contender.name}"[:40])
                    contender.resume()
                    asked = replace(load, url=contender.url, model=model, seed=number)
                    report = run(replace(asked, parameters={"temperature": 0}), bar.update)
                    contender.pause()
                    check(report)
                    samples[contender.name, name].append(Sample.of(report.summary()))
    return samples


def health_times(model: Path, probes: int) -> list[float]:
    """Seconds that /health takes with every slot and place in the queue taken by a stream.

    The load runs in a process of its own: the probes must not wait for it. Every probe
    is a new connection, as an orchestrator's is.
    """
    full = str(servers.SLOTS + servers.QUEUE)
    with servers.ours(model, "continuous") as server:
        command = [sys.executable, "-m", "serving.client.load_test", server.url]
        command += ["--clients", full, "--requests", "100000", "--tokens", "64-128"]
        load = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(3)  # until every client is connected
            _must_be_full(server)
            times = [_probe(server) for _ in tqdm(range(probes), "/health", file=sys.stderr)]
            _must_be_full(server)
            return times
        finally:
            load.kill()
            load.wait()


def _must_be_full(server: ServerProcess) -> None:
    body = {"prompt": PROMPT, "max_new_tokens": 1}
    for _ in range(5):  # a place is free for a moment when a client has its answer
        answer = httpx.post(f"{server.url}/generate", json=body, timeout=120, trust_env=False)
        if answer.status_code == 503:
            return
    raise RuntimeError("the server had places left: /health was not measured under full load")


def _probe(server: ServerProcess) -> float:
    # Not httpx: it prepares for TLS with every new client, which takes longer than /health.
    connection = HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    began = time.perf_counter()
    connection.request("GET", "/health")
    answer = connection.getresponse()
    answer.read()
    seconds = time.perf_counter() - began
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"/health answered {answer.status} on a full server")
    time.sleep(0.1)
    return seconds


def machine(model: str) -> str:
    """What the figures were measured on, without anything that names the machine."""
    import torch

    names = ("torch", "transformers", "flask", "waitress")
    return (
        f"Measured on {time.strftime('%Y-%m-%d')}: {processors():.3g} CPUs ({processor_name()}, "
        f"{torch.backends.cpu.get_cpu_capability()}), "
        f"{physical_memory().total / 2**30:.0f} GiB of memory, {platform.system()}, "
        f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in names)
        + f"; `{model}` in float32 with {torch.get_num_threads()} threads."
    )


def first_token(samples: Samples, load: str, server: str = STEP) -> float:
    """Time to first token under a load, less that of an idle server, in decoding steps."""
    alone = tables.median(samples[server, load.partition(",")[0] + ", 1"], lambda s: s.ttft)
    return tables.median(samples[server, load], lambda s: (s.ttft - alone) / s.per_token)


def targets(samples: Samples) -> list[tuple[str, float, float, bool]]:
    """What this course's server is to reach: (what, figure, bound, whether it is a lower one)."""
    found = []

    def faster(other: str, load: str, bound: float) -> None:
        if (other, load) in samples:
            value = tables.ratio(samples, load, STEP, other, lambda s: s.tokens_per_second)
            found.append((f"tokens/s against {other}; {load} clients", value, bound, True))

    for kind in ("equal", "mixed"):
        faster(TUTORIAL, f"{kind}, 8", 4)
        faster(TUTORIAL, f"{kind}, 32", 6)
        for clients in (8, 32):
            faster(PAGED, f"{kind}, {clients}", 1.3)
        steps = first_token(samples, f"{kind}, 8")
        what = f"first token, in steps after its prefill; {kind}, 8 clients"
        found.append((what, steps, 3, False))
    for clients in (8, 32):
        value = tables.ratio(samples, f"mixed, {clients}", STEP, STATIC, lambda s: s.p50)
        found.append((f"p50 against static batches; mixed, {clients} clients", value, 1 / 3, False))
    return found


def write_up(samples: Samples, names: list[str], model: str, rounds: int) -> str:
    """The tables of all servers and loads."""
    speed = tables.grid(samples, names, TUTORIAL, lambda s: s.tokens_per_second, "{:.0f}".format)
    wait = tables.grid(samples, names, TUTORIAL, lambda s: s.p50, "{:.2f}".format)
    first = tables.grid(samples, names, TUTORIAL, lambda s: 1000 * s.ttft, "{:.0f}".format)
    verdict = ["| target | figure | bound | |", "|---|---|---|---|"]
    for what, value, bound, lower in targets(samples):
        reached = value >= bound if lower else value <= bound
        sign = "at least" if lower else "at most"
        verdict.append(f"| {what} | {value:.2f} | {sign} {bound:.2g} | {'✓' if reached else '✗'} |")
    return "\n\n".join(
        [
            machine(model),
            f"Medians of rounds: {rounds}; in brackets the ratio to the tutorial's server.",
            f"**Tokens per second** (more is better), by lengths and number of clients:\n\n{speed}",
            f"**Median latency of a request in seconds** (less is better):\n\n{wait}",
            f"**Median time to first token in milliseconds** (less is better):\n\n{first}",
            "**What this course's server is to reach**:\n\n" + "\n".join(verdict),
        ]
    )


def health_text(times: list[float]) -> str:
    """The line about /health."""
    found, worst = spread(times), max(times)
    return (
        f"**/health** with {servers.SLOTS} slots and a queue of {servers.QUEUE} full of streams, "
        f"{len(times)} times: p50 {1000 * (found['p50'] or 0):.0f} ms, "
        f"p99 {1000 * (found['p99'] or 0):.0f} ms, longest {1000 * worst:.0f} ms "
        f"(at most {1000 * HEALTH_LIMIT:.0f}) {'✓' if worst <= HEALTH_LIMIT else '✗'}"
    )


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and (a whole run) write into the README; 0 where all was measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--model", default="course-gpt-16m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a minute to see that all works")
    parser.add_argument("--health", action="store_true", help="only the time of /health")
    beside = Path(sys.executable).with_name("transformers")
    default = str(beside) if beside.exists() else shutil.which("transformers") or "transformers"
    parser.add_argument(
        "--transformers", default=default, metavar="PATH", help=f"its command; {servers.NEEDS}"
    )
    given = parser.parse_args(argv)
    if given.rounds < 1:
        parser.error("--rounds is at least 1")
    rounds = 1 if given.quick else given.rounds
    parts = []
    with servers.endless(given.model) as folder:
        if not given.health:
            todo = loads(given.quick)
            with ExitStack() as stack:
                running, missing = start(folder, given.transformers, stack)
                samples = measure(running, todo, str(folder), rounds)
            parts = [write_up(samples, list(todo), given.model, rounds)]
            if missing:
                parts.append("\n".join(missing) + f"\n\nThese need `{servers.NEEDS}`.")
        parts.append(health_text(health_times(folder, 20 if given.quick else 100)))
    text = "\n\n".join(parts)
    print(text)
    if not (given.quick or given.health):
        tables.replace(README, text)
    return 0


if __name__ == "__main__":
    startup.run(main)
