"""What number formats of the weights gain and cost on a CPU: speed, memory, quality. (Lesson 08.)

    python -m benchmarks.int8 [--model NAME] [--rounds 2]

Each format runs in a process of its own, in turn, round by round: decoding speed of the engine
with 1, 8 and 32 rows, resident memory after that, bits per byte of a held-out text, and how
often the most probable next token is float32's, at every position of that text.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from statistics import median
from typing import Any

from system import startup

FORMATS = ("float32", "bfloat16", "int8")
ROWS = (1, 8, 32)
STEPS = 24  # decoding steps that are timed, or as many as take so many seconds:
MOST_SECONDS = 6
CHARACTERS = 4000  # of the held-out text


def measure(model_name: str, dtype: str) -> dict[str, Any]:
    """One format, in this process."""
    import psutil
    import torch

    from helpers.models import models_folder
    from helpers.quality import bits_per_byte
    from helpers.settings import GenerationSettings
    from serving.engine.engine import Engine
    from serving.engine.jobs import Job
    from serving.engine.loading import load_for_engine

    model, tokenizer = load_for_engine(model_name, "cpu", dtype, slots=max(ROWS))
    engine = Engine(model, tokenizer, slots=max(ROWS))
    engine.start()
    found: dict[str, Any] = {}

    def speed(rows: int, tokens: int) -> float:
        """Tokens a second of decoding steps alone."""
        steps, seconds = engine.stats.row_steps, engine.stats.seconds_in_steps
        job = Job(600, ignore_end=True)
        for _ in range(rows):
            job.add(GenerationSettings(temperature=0), list(range(100, 108)), tokens)
        engine.submit(job)
        for _ in job.updates():
            pass
        return (engine.stats.row_steps - steps) / (engine.stats.seconds_in_steps - seconds)

    for rows in ROWS:
        steps = int(MOST_SECONDS * speed(rows, 3) / rows)
        found[f"{rows}"] = speed(rows, 1 + min(max(steps, 2), STEPS))
    found["resident"] = psutil.Process().memory_info().rss / 2**20
    engine.close()
    text = (models_folder() / "heldout.md").read_text("utf-8")[:CHARACTERS]
    ids = torch.tensor([tokenizer(text)["input_ids"][:512]])
    with torch.inference_mode():
        found["best"] = model(input_ids=ids).logits[0].argmax(-1).tolist()
    found["bits"] = bits_per_byte(model, tokenizer, text)
    return found


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: a row a format; in brackets the ratio to float32 in the same round."""
    right = results["float32"][0]["best"]
    lines = ["| weights | 1 row | 8 rows | 32 rows | resident MiB | bits per byte | agreement |"]
    lines.append("|---" * 7 + "|")
    for dtype, rounds in results.items():
        cells = []
        for rows in map(str, ROWS):
            pairs = zip(rounds, results["float32"], strict=True)
            share = median(mine[rows] / base[rows] for mine, base in pairs)
            cells.append(f"{median(r[rows] for r in rounds):.0f} ({share:.2g}×)")
        same = sum(a == b for a, b in zip(rounds[0]["best"], right, strict=True)) / len(right)
        cells.append(f"{median(r['resident'] for r in rounds):.0f}")
        cells += [f"{rounds[0]['bits']:.3f}", f"{100 * same:.1f} %"]
        lines.append(f"| {dtype} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.int8", description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=FORMATS, help="one format, in this process, as JSON")
    given = parser.parse_args(argv)
    if given.only:
        print(json.dumps(measure(given.model, given.only)))
        return 0
    results = defaultdict(list)
    for _ in range(given.rounds):
        for dtype in FORMATS:
            command = [sys.executable, "-m", "benchmarks.int8", "--model", given.model]
            ran = subprocess.run([*command, "--only", dtype], stdout=subprocess.PIPE, check=True)
            results[dtype].append(json.loads(ran.stdout.splitlines()[-1]))
            print(
                dtype, {k: v for k, v in results[dtype][-1].items() if k != "best"}, file=sys.stderr
            )
    print(table(results))
    return 0


if __name__ == "__main__":
    startup.run(main)
