"""Time to first token behind a shared system prompt, with and without prefix cache. (Lesson 08.)

    python -m benchmarks.prefix [--model NAME] [--tokens 400] [--rounds 5]

Two servers of this course, one that keeps what prompts begin with and one that does not. In
each round a new system prompt is sent with a question (first time), and again with other
questions, by one client and by eight at the same moment. A server that is not measured is
suspended; values are medians of all requests, ratios the medians of the rounds' own.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from benchmarks.servers import Contender
from helpers.models import locate
from serving.client import Client, ServerProcess
from system import startup

QUESTIONS = ("What is a process?", "Why do computers have caches?", "What does a compiler do?")
SENTENCES = tuple(
    f"{who} {what}."
    for who in ("The assistant", "A short answer", "Every explanation", "The text", "A summary")
    for what in (
        "names the most important facts first",
        "uses plain words where they are exact enough",
        "says what is not known",
        "gives one example from daily work",
        "leaves out what was not asked for",
    )
)
WITHOUT, WITH = "nothing kept", "prefix cache"
Times = dict[tuple[str, str], list[float]]  # (server, load) → a round's median in seconds


def system_prompt(tokenizer: PreTrainedTokenizerBase, tokens: int, seed: int) -> str:
    """Sentences in a random order, `tokens` long or as few more as the cut gives."""
    chance, text = random.Random(seed), ""
    while len(ids := tokenizer(text)["input_ids"]) < tokens:
        text += " ".join(chance.sample(SENTENCES, len(SENTENCES))) + " "
    return str(tokenizer.decode(ids[:tokens]))


def first_tokens(client: Client, prompts: list[str]) -> float:
    """Median time to first token, in seconds, of prompts that are sent at the same moment."""

    def one(prompt: str) -> float:
        pieces = client.stream(prompt, max_new_tokens=4, temperature=0)
        for _ in pieces:
            pass
        return pieces.ttft

    with ThreadPoolExecutor(len(prompts)) as threads:
        return median(threads.map(one, prompts))


def measure(model: str, tokens: int, rounds: int) -> Times:
    """Both servers in turn, round by round."""
    tokenizer = AutoTokenizer.from_pretrained(locate(model))
    options = {"model": model, "device": "cpu", "max_length_limit": tokens + 64}
    times: Times = defaultdict(list)
    servers = [
        Contender(name, ServerProcess(f"prefix-{size}", prefix_cache_mb=size, **options))
        for name, size in ((WITHOUT, 0), (WITH, 64))
    ]
    try:
        for server in servers:
            Client(server.url).generate("The first request of all", max_new_tokens=8)
            server.pause()
        for number in range(rounds):
            system = system_prompt(tokenizer, tokens, number)
            asked = [f"{system} {number} {n}: {q}" for n in range(6) for q in QUESTIONS]
            for server in servers:
                server.resume()
                client = Client(server.url)
                loads = {"first time": asked[:1], "1 client": asked[1:2], "8 clients": asked[2:10]}
                for load, prompts in loads.items():
                    times[server.name, load].append(first_tokens(client, prompts))
                    print(number, server.name, load, times[server.name, load][-1], file=sys.stderr)
                server.pause()
    finally:
        for server in servers:
            server.stop()
    return times


def table(times: Times) -> str:
    """Milliseconds, and in brackets the ratio to the server that keeps nothing."""
    loads = list(dict.fromkeys(load for _, load in times))
    rows = ["| server | " + " | ".join(loads) + " |", "|---" * (len(loads) + 1) + "|"]
    for server in (WITHOUT, WITH):
        cells = []
        for load in loads:
            pairs = zip(times[server, load], times[WITHOUT, load], strict=True)
            share = median(mine / theirs for mine, theirs in pairs)
            cells.append(f"{1000 * median(times[server, load]):.0f} ({share:.2g}×)")
        rows.append(f"| {server} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main(argv: list[str] | None = None) -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prefix", description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--tokens", type=int, default=400, help="of the system prompt")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(argv)
    print(table(measure(given.model, given.tokens, given.rounds)))
    return 0


if __name__ == "__main__":
    startup.run(main)
