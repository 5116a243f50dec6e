"""What a shipped model writes, unselected, and how much of it is copied (`samples.md`).

Thirty samples of fixed prompts, temperatures and seed; the share of their runs of eight
words that stand word for word in the training text; how many of fifty questions are
answered with a text that the model itself ends; and how many greedy samples go in circles.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm.auto import tqdm

from helpers.generator import Generation, TextGenerator
from system.textfiles import read_text

QUESTIONS = Path(__file__).with_name("questions.txt")
PROMPTS = (
    "Machine learning is",
    "A container is",
    "Kubernetes is",
    "Q: What is Docker?\nA:",
    "Explain tokenization.",
    "Once upon a time",
)
TEMPERATURES = (0.0, 0.3, 0.7, 1.0, 1.5)
RUN_WORDS = 8
SAMPLE_TOKENS, ANSWER_TOKENS = 50, 200


def runs(text: str, length: int = RUN_WORDS) -> Iterator[tuple[str, ...]]:
    """Every run of `length` words in the text."""
    words = text.split()
    for start in range(len(words) - length + 1):
        yield tuple(words[start : start + length])


def copied(groups: dict[str, list[str]], training: Iterable[str]) -> dict[str, tuple[int, int]]:
    """How much of each group of texts stands word for word in the training text.

    Args:
        groups: texts by the name of their group.
        training: the documents that the models were trained on.

    Returns:
        By group: runs of eight words that stand in a training document, and all its runs.
    """
    found = {name: [run for text in texts for run in runs(text)] for name, texts in groups.items()}
    wanted = {run for group in found.values() for run in group}
    seen: set[tuple[str, ...]] = set()
    for document in tqdm(training, desc="training text", unit="doc"):
        seen.update(run for run in runs(document) if run in wanted)
    return {name: (sum(run in seen for run in group), len(group)) for name, group in found.items()}


def draw(generator: TextGenerator) -> dict[float, list[Generation]]:
    """Every prompt at every temperature, seed 0: by temperature, in the prompts' order."""
    return {
        temperature: [
            generator.generate(p, temperature=temperature, max_new_tokens=SAMPLE_TOKENS, seed=0)
            for p in PROMPTS
        ]
        for temperature in TEMPERATURES
    }


def answers(generator: TextGenerator, temperature: float) -> list[Generation]:
    """The answers to the fifty questions, seed 0."""
    questions = read_text(QUESTIONS).splitlines()
    return [
        generator.generate(
            f"Q: {question}\nA:", temperature=temperature, max_new_tokens=ANSWER_TOKENS, seed=0
        )
        for question in tqdm(questions, desc=f"questions, temperature {temperature}")
    ]


def ended(generations: Iterable[Generation]) -> int:
    """How many ended with end-of-text, and not because the tokens ran out."""
    return sum(g.finish_reasons[0] == "end_of_text" for g in generations)


def circling(texts: Iterable[str]) -> int:
    """How many of the texts say some four words three times or more."""
    return sum(max(Counter(runs(text, 4)).values(), default=0) >= 3 for text in texts)


def measure(
    generator: TextGenerator, training: Iterable[str], heldout: str
) -> tuple[str, dict[str, str]]:
    """All of it.

    Args:
        generator: the model.
        training: the documents that it was trained on.
        heldout: text of people from the same sources, which it was not trained on; how much
            of that stands in the training text shows what is usual.

    Returns:
        the page of samples in Markdown, and facts for the card: what was counted, and the count.
    """
    drawn = draw(generator)
    answered = {t: answers(generator, t) for t in (0.0, 0.7)}
    groups = {f"samples, temperature {t}": [g.new_text for g in gs] for t, gs in drawn.items()}
    groups |= {f"answers, temperature {t}": [g.new_text for g in a] for t, a in answered.items()}
    groups["held-out text, written by people"] = [heldout]
    lines = [
        f"# Samples of {generator.name}",
        "",
        f"Written by `training/export.py`; none was chosen or left out. Seed 0, top-k 50, "
        f"{SAMPLE_TOKENS} new tokens.",
        "",
        "## How much is copied",
        "",
        f"A run is {RUN_WORDS} words in a row. It counts as copied if it stands word for word "
        "in the training text.",
        "",
        "| text | runs | copied | share |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, (hits, total) in copied(groups, training).items():
        lines.append(f"| {name} | {total:,} | {hits:,} | {hits / max(1, total):.1%} |")
    lines += ["", "## Whether answers end", ""]
    facts = {}
    for t, found in answered.items():
        count = f"{ended(found)} of {len(found)}"
        facts[f"answers that the model ends itself, temperature {t}"] = count
        lines.append(
            f"At temperature {t}, {count} questions (`training/questions.txt`, as `Q: …` and "
            f"`A:`) were answered with a text that ended within {ANSWER_TOKENS} tokens."
        )
        lines.append("")
    count = f"{circling(g.new_text for g in drawn[0.0])} of {len(PROMPTS)}"
    facts["samples at temperature 0.0 that say four words three times"] = count
    lines += [f"At temperature 0.0, {count} samples say some four words three times or more.", ""]
    for t, generations in drawn.items():
        lines += [f"## Temperature {t}", ""]
        for g in generations:
            lines += ["```text", g.text.strip(), "```", ""]
    return "\n".join(lines).rstrip() + "\n", facts
