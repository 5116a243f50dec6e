"""What a form costs: the same number of tokens written freely and under a grammar. (Lesson 07.)

    python -m benchmarks.structure [--model NAME] [--rounds 3]

One server, one load after the other, several rounds; every text is 64 tokens long. Masks are
computed while the model reads the token before: what is left of their cost is the difference.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from statistics import median
from typing import Any

from benchmarks import servers
from benchmarks.serving import check
from serving.client import ServerProcess
from serving.client.load_test import Load, run
from system import startup

TOKENS = 64
LONG = {"type": "string", "minLength": 4000}
RECORD = {"type": "object", "properties": {"team": {"enum": ["network"]}, "text": LONG}}
SCHEMA = RECORD | {"required": ["team", "text"], "additionalProperties": False}
FORMS: dict[str, dict[str, Any]] = {
    "any text": {},
    "schema": {"json": SCHEMA},
    "regex": {"regex": r"([a-z]{1,12}[ ,.]){2000}"},
}


def main(argv: list[str] | None = None) -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.structure", description=__doc__)
    parser.add_argument("--model", default="course-gpt-16m")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(argv)
    speeds: dict[tuple[str, int], list[float]] = defaultdict(list)
    with (
        servers.endless(given.model) as folder,
        ServerProcess("structure", model=folder, slots=32, queue_length=64) as server,
    ):
        for _ in range(given.rounds):
            for clients in (1, 8, 32):
                for name, form in FORMS.items():
                    load = Load(
                        server.url,
                        requests=2 * clients,
                        clients=clients,
                        min_tokens=TOKENS,
                        max_tokens=TOKENS,
                        parameters={"structured_outputs": form} if form else {},
                    )
                    report = run(load)
                    check(report)
                    speeds[name, clients].append(report.summary()["tokens_per_second"])
                    print(name, clients, round(speeds[name, clients][-1]), file=sys.stderr)
    print("| form | 1 client | 8 clients | 32 clients |\n|---|---|---|---|")
    for name in FORMS:
        cells = []
        for clients in (1, 8, 32):
            free = speeds["any text", clients]
            share = median(a / b for a, b in zip(speeds[name, clients], free, strict=True))
            cells.append(f"{median(speeds[name, clients]):.0f} ({share:.2f})")
        print(f"| {name} | {' | '.join(cells)} |")
    print("\nTokens per second, medians; in brackets the ratio to any text in the same round.")
    return 0


if __name__ == "__main__":
    startup.run(main)
