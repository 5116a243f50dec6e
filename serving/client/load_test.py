"""Load any OpenAI-compatible server and measure what its users would feel. (Lesson 09.)

    python -m serving.client.load_test http://127.0.0.1:5000 --clients 8 --requests 64

Two kinds of load: closed (a fixed number of clients, each sends its next request when
the last is answered) and open (requests arrive by chance at a fixed mean rate, however
slow the answers are; a server that is too slow then shows it).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

from helpers import startup

PROMPTS = (
    "Machine learning is",
    "The operating system",
    "A database stores",
    "In computer networks, a packet",
    "The history of computing began with",
    "A neural network learns from examples because",
    "Memory is",
    "When a server receives more requests than it can answer, it",
)


@dataclass(frozen=True)
class Result:
    """One request: what it took, in seconds, or why it failed."""

    started: float
    seconds: float
    ttft: float = float("nan")
    tokens: int = 0
    error: str = ""

    @property
    def per_token(self) -> float:
        """Mean time per output token after the first, in seconds; NaN with one token."""
        return (self.seconds - self.ttft) / (self.tokens - 1) if self.tokens > 1 else float("nan")


@dataclass
class Load:
    """What to send.

    Attributes:
        url: the server, without /v1.
        model: as the server names it; "" asks /v1/models.
        requests: how many in all.
        clients: closed load: how many at the same time.
        rate: open load: mean requests a second; 0 is closed load.
        min_tokens, max_tokens: lengths are drawn evenly from this range.
        skewed: draw their logarithms evenly instead: many short texts and few long ones,
            as real traffic has them.
        ignore_end: ask for full lengths (`ignore_eos`, an extension of this course's
            server and of vLLM).
        seed: of the lengths, prompts and arrival times.
        timeout: seconds after which a request counts as failed.
        parameters: sent along with every request.
    """

    url: str
    model: str = ""
    requests: int = 64
    clients: int = 8
    rate: float = 0.0
    min_tokens: int = 32
    max_tokens: int = 32
    skewed: bool = False
    ignore_end: bool = False
    seed: int = 0
    timeout: float = 120.0
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass
class Report:
    """The requests of one load test, and what they amount to."""

    load: Load
    seconds: float
    results: list[Result]

    @property
    def good(self) -> list[Result]:
        """The requests that were answered in full."""
        return [r for r in self.results if not r.error]

    def summary(self) -> dict[str, Any]:
        """Throughput, latencies (mean and percentiles, in seconds), errors by kind."""
        good = self.good
        tokens = sum(r.tokens for r in good)
        return {
            "requests": len(self.results),
            "seconds": round(self.seconds, 3),
            "requests_per_second": round(len(good) / self.seconds, 3),
            "tokens_per_second": round(tokens / self.seconds, 1),
            "tokens": tokens,
            "latency": spread([r.seconds for r in good]),
            "time_to_first_token": spread([r.ttft for r in good]),
            "time_per_output_token": spread([r.per_token for r in good]),
            "errors": dict(Counter(r.error for r in self.results if r.error)),
        }

    def table(self) -> str:
        """The summary for reading."""
        s = self.summary()
        lines = [
            f"{s['requests']} requests in {s['seconds']:.1f} s: "
            f"{s['requests_per_second']:.2f} requests/s, {s['tokens_per_second']:.0f} tokens/s",
            "",
            f"{'milliseconds':<24}{'mean':>9}{'p50':>9}{'p95':>9}{'p99':>9}",
        ]
        for name in ("latency", "time_to_first_token", "time_per_output_token"):
            row = "".join(_cell(s[name][k]) for k in ("mean", "p50", "p95", "p99"))
            lines.append(f"{name.replace('_', ' '):<24}{row}")
        lines += ["", "errors: " + (", ".join(f"{n} × {k}" for k, n in s["errors"].items()) or "0")]
        return "\n".join(lines)

    def to_json(self) -> str:
        """Settings, summary and every request."""
        content = {
            "load": asdict(self.load),
            "summary": self.summary(),
            "results": [asdict(r) for r in self.results],
        }
        return json.dumps(content, indent=1).replace("NaN", "null")


def _cell(seconds: float | None) -> str:
    return f"{'-':>9}" if seconds is None else f"{seconds * 1000:>9.1f}"


def spread(values: list[float]) -> dict[str, float | None]:
    """Mean and percentiles in seconds, without values that are not numbers; None if none are."""
    import numpy as np

    numbers = np.array([v for v in values if v == v])
    if not len(numbers):
        return dict.fromkeys(("mean", "p50", "p95", "p99"))
    found = {f"p{p}": float(np.percentile(numbers, p)) for p in (50, 95, 99)}
    return {k: round(v, 5) for k, v in ({"mean": float(numbers.mean())} | found).items()}


def run(load: Load, progress: Callable[[], object] = lambda: None) -> Report:
    """Send the load and wait for every answer.

    Args:
        load: what to send.
        progress: called at the end of every request.
    """
    return asyncio.run(run_async(load, progress))


async def run_async(load: Load, progress: Callable[[], object] = lambda: None) -> Report:
    """`run` for code that is in an event loop already, such as a notebook: `await` it."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=load.clients)
    async with httpx.AsyncClient(base_url=load.url, timeout=load.timeout, limits=limits) as http:
        model = load.model or (await http.get("/v1/models")).json()["data"][0]["id"]
        requests = bodies(load, model)
        start = time.perf_counter()

        async def one(body: dict[str, Any]) -> Result:
            result = await _send(http, body, start)
            progress()
            return result

        spreader: Callable[..., Awaitable[list[Result]]] = _open if load.rate else _closed
        results = await spreader(load, requests, one)
        return Report(load, time.perf_counter() - start, results)


def bodies(load: Load, model: str) -> list[dict[str, Any]]:
    """The requests of a load, in the order in which they are sent."""
    chance = random.Random(load.seed)
    common: dict[str, Any] = {"model": model, "stream": True, "temperature": 0.8}
    common |= {"stream_options": {"include_usage": True}}
    if load.ignore_end:
        common["ignore_eos"] = True
    return [
        common
        | {
            "prompt": chance.choice(PROMPTS),
            "max_tokens": _length(load, chance),
            "seed": load.seed + n,
        }
        | load.parameters
        for n in range(load.requests)
    ]


def _length(load: Load, chance: random.Random) -> int:
    low, high = load.min_tokens, load.max_tokens
    if load.skewed:
        return round(low * (high / low) ** chance.random())
    return chance.randint(low, high)


async def _closed(
    load: Load, bodies: list[dict[str, Any]], one: Callable[[dict[str, Any]], Awaitable[Result]]
) -> list[Result]:
    waiting, results = iter(bodies), []

    async def client() -> None:
        for body in waiting:
            results.append(await one(body))

    await asyncio.gather(*(client() for _ in range(load.clients)))
    return results


async def _open(
    load: Load, bodies: list[dict[str, Any]], one: Callable[[dict[str, Any]], Awaitable[Result]]
) -> list[Result]:
    chance, tasks = random.Random(load.seed), []
    for body in bodies:
        tasks.append(asyncio.ensure_future(one(body)))
        await asyncio.sleep(chance.expovariate(load.rate))  # arrivals of a Poisson process
    return list(await asyncio.gather(*tasks))


async def _send(http: httpx.AsyncClient, body: dict[str, Any], zero: float) -> Result:
    """One streamed completion; times count from when it was sent."""
    start = time.perf_counter()
    ttft, pieces, tokens, ended = float("nan"), 0, 0, False
    error = ""
    try:
        async with http.stream("POST", "/v1/completions", json=body) as response:
            if response.is_error:
                await response.aread()
                error = f"HTTP {response.status_code}"
            else:
                async for line in response.aiter_lines():
                    if not line.startswith("data:"):
                        continue
                    data = line[5:].strip()
                    if data == "[DONE]":
                        ended = True
                        continue
                    block = json.loads(data)
                    if "error" in block:
                        error = "error in the stream"
                    if block.get("usage"):
                        tokens = block["usage"]["completion_tokens"]
                    choices = block.get("choices", [])
                    if any(c.get("finish_reason") for c in choices):
                        ended = True  # `transformers serve` sends no [DONE] after it
                    if any(c.get("text") or c.get("finish_reason") for c in choices):
                        pieces += 1
                        if ttft != ttft:
                            ttft = time.perf_counter() - start
                if not ended and not error:
                    error = "stream broke off"
    except httpx.TimeoutException:
        error = "timeout"
    except httpx.HTTPError as problem:
        error = type(problem).__name__
    seconds = time.perf_counter() - start
    return Result(start - zero, seconds, ttft, tokens or pieces, error)


def main(argv: list[str] | None = None) -> int:
    """The command line; exit status 1 where any request failed, 2 where no server answers."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.client.load_test",
        description="Load an OpenAI-compatible server and measure its answers.",
    )
    parser.add_argument("url", help="the server, such as http://127.0.0.1:5000")
    parser.add_argument("--model", default="", help="as the server names it (asks /v1/models)")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--clients", type=int, default=8, help="closed load: at the same time")
    parser.add_argument("--rate", type=float, default=0.0, help="open load: requests a second")
    parser.add_argument("--tokens", default="32", help="new tokens, or a range such as 8-128")
    parser.add_argument("--ignore-end", action="store_true", help="ask for full lengths")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds")
    parser.add_argument("--json", type=Path, help="write settings, summary and requests there")
    given = parser.parse_args(argv)
    low, _, high = given.tokens.partition("-")
    if not (low.isdecimal() and (high or low).isdecimal() and 0 < int(low) <= int(high or low)):
        parser.error(f"--tokens {given.tokens!r}: a number, or a range such as 8-128")
    if min(given.requests, given.clients) < 1 or given.rate < 0:
        parser.error("--requests and --clients are at least 1, --rate is not negative")
    load = Load(
        url=given.url.rstrip("/").removesuffix("/v1"),
        model=given.model,
        requests=given.requests,
        clients=given.clients,
        rate=given.rate,
        min_tokens=int(low),
        max_tokens=int(high or low),
        ignore_end=given.ignore_end,
        seed=given.seed,
        timeout=given.timeout,
    )
    from tqdm import tqdm

    try:
        with tqdm(total=load.requests, unit="request", file=sys.stderr) as bar:
            report = run(load, bar.update)
    except (httpx.HTTPError, KeyError, ValueError, TypeError) as error:
        print(f"no OpenAI-compatible server answers at {load.url}: {error}", file=sys.stderr)
        return 2
    print(report.table())
    if given.json:
        given.json.write_text(report.to_json(), encoding="utf-8")
    return 1 if len(report.good) < len(report.results) else 0


if __name__ == "__main__":
    startup.run(main)
