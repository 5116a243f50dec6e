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
from collections.abc import Awaitable, Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import httpx

from serving.client.keys import bearer
from serving.client.load_report import Load, Report, Result, spread
from serving.client.sse import Parser
from system import startup
from system.environment import is_loopback

__all__ = ["Load", "Report", "Result", "arrivals", "bodies", "main", "run", "run_async", "spread"]
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


def run(
    load: Load, progress: Callable[[], object] = lambda: None, api_key: str | None = None
) -> Report:
    """Send the load and wait for every answer.

    Args:
        load: what to send.
        progress: called at the end of every request.
        api_key: for a server with API keys; None takes LLM_API_KEY from the environment.
    """
    return asyncio.run(run_async(load, progress, api_key))


async def run_async(
    load: Load, progress: Callable[[], object] = lambda: None, api_key: str | None = None
) -> Report:
    """`run` for code that is in an event loop already, such as a notebook: `await` it."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=load.clients)
    async with httpx.AsyncClient(
        base_url=load.url,
        timeout=load.timeout,
        limits=limits,
        trust_env=not is_loopback(load.url),  # no proxy stands between this machine and itself
        headers=bearer(api_key),
    ) as http:
        model = (
            load.model or (await http.get("/v1/models")).raise_for_status().json()["data"][0]["id"]
        )
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


def arrivals(load: Load) -> list[float]:
    """When each request of an open load is sent, in seconds after the first (Poisson process)."""
    chance = random.Random(load.seed)
    gaps = (chance.expovariate(load.rate) for _ in range(load.requests - 1))
    return list(accumulate(gaps, initial=0.0))


async def _open(
    load: Load, bodies: list[dict[str, Any]], one: Callable[[dict[str, Any]], Awaitable[Result]]
) -> list[Result]:
    tasks, zero = [], time.perf_counter()
    for body, due in zip(bodies, arrivals(load), strict=True):
        await asyncio.sleep(max(0.0, zero + due - time.perf_counter()))
        tasks.append(asyncio.ensure_future(one(body)))
    return list(await asyncio.gather(*tasks))


async def _send(http: httpx.AsyncClient, body: dict[str, Any], zero: float) -> Result:
    """One streamed completion; times count from when it was sent."""
    start, answer, error = time.perf_counter(), _Answer(), ""
    try:
        async with http.stream("POST", "/v1/completions", json=body) as response:
            if response.status_code != 200:
                error = f"HTTP {response.status_code}"
            else:
                parser = Parser()
                async for chunk in response.aiter_bytes():
                    now = time.perf_counter() - start
                    for event in parser.feed(chunk):
                        answer.take(event.data, now)
                error = answer.error or ("" if answer.ended else "stream broke off")
    except httpx.TimeoutException:
        error = "timeout"
    except httpx.HTTPError as problem:
        error = type(problem).__name__
    except (ValueError, AttributeError, TypeError, KeyError):
        error = "malformed stream"
    seconds = time.perf_counter() - start
    return Result(start - zero, seconds, answer.ttft, answer.tokens or answer.pieces, error)


class _Answer:
    """What the events of one stream have said so far."""

    def __init__(self) -> None:
        self.ttft, self.pieces, self.tokens = float("nan"), 0, 0
        self.ended, self.error = False, ""

    def take(self, data: str, now: float) -> None:
        """Take one event, which came `now` seconds after the request was sent."""
        if data == "[DONE]":
            self.ended = True
            return
        block = json.loads(data)
        if "error" in block:
            self.error = "error in the stream"
        if block.get("usage"):
            self.tokens = block["usage"]["completion_tokens"]
        choices = block.get("choices", [])
        if any(c.get("finish_reason") for c in choices):
            self.ended = True  # `transformers serve` sends no [DONE] after it
        text = any(c.get("text") for c in choices)
        self.pieces += text
        if self.ttft != self.ttft and (text or self.ended):
            self.ttft = now


def main(argv: list[str] | None = None) -> int:
    """The command line; exit status 1 where any request failed, 2 where no server answers."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.client.load_test",
        description="Load an OpenAI-compatible server and measure its answers.",
        epilog="LLM_API_KEY in the environment is sent to servers that want a key.",
    )
    parser.add_argument("url", help="the server, such as http://127.0.0.1:5000")
    parser.add_argument("--model", default="", help="as the server names it (asks /v1/models)")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--clients", type=int, default=8, help="closed load: at the same time")
    parser.add_argument("--rate", type=float, default=0.0, help="open load: requests a second")
    parser.add_argument("--tokens", default="32", help="new tokens, or a range such as 8-128")
    parser.add_argument("--ignore-end", action="store_true", help="ask for full lengths")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-seeds", action="store_true", help="for servers that take none")
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
        parameters={"seed": None} if given.no_seeds else {},
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
