r"""From a checkpoint to `models/NAME`: fp16 weights, tokenizer, facts, figure, model card.

    python -m training.export --model course-gpt-4m --corpus corpus.txt --validation held.txt \
        --sources SOURCES.md --machine "2 cores of …"

The samples beside the card are drawn with fixed seeds and none is left out.
"""

# ruff: noqa: E501 (the lines of a Markdown table cannot be broken)
from __future__ import annotations

import argparse
import csv
import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast

from helpers.generator import TextGenerator
from helpers.models import models_folder
from helpers.quality import bits_per_byte
from system import startup
from system.textfiles import read_text
from training.data import END_OF_TEXT, read_documents
from training.samples import measure
from training.train import CONTEXT, SHAPES, new_model

LICENCE = "CC BY-SA 4.0"


def export(args: argparse.Namespace) -> None:
    """Write `models/NAME` and the checksums of the whole folder."""
    source, target = args.work / args.model, models_folder() / args.model
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(args.work / "tokenizer.json"),
        eos_token=END_OF_TEXT,
        bos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    state = torch.load(source / "checkpoint.pt", map_location="cpu", weights_only=True)
    model = new_model(SHAPES[args.model], tokenizer.eos_token_id)
    model.load_state_dict(state["model"])
    end = tokenizer.eos_token_id
    model.generation_config = GenerationConfig(bos_token_id=end, eos_token_id=end, pad_token_id=end)
    model.half().save_pretrained(target)
    tokenizer.save_pretrained(target)
    model = model.float().eval()  # measured as it is shipped: with rounded weights

    text = read_text(args.validation)
    facts = {
        "model": args.model,
        "parameters": sum(p.numel() for p in model.parameters()),
        **asdict(SHAPES[args.model]),
        "context": CONTEXT,
        "licence": LICENCE,
        "training_tokens": state["tokens"],
        "training_minutes": round(state["seconds"] / 60, 1),
        **({"grown_from": args.grown_from} if args.grown_from else {}),
        "machine": args.machine,
        "validation_bits_per_byte": round(bits_per_byte(model, tokenizer, text), 3),
        "heldout_bits_per_byte": round(
            bits_per_byte(model, tokenizer, (models_folder() / "heldout.md").read_text("utf-8")), 3
        ),
    }
    (target / "training.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    shutil.copy(source / "log.csv", target / "training_log.csv")
    draw_curve(target)
    generator = TextGenerator(model, tokenizer, args.model)
    page, counted = measure(generator, read_documents(args.corpus), text)
    (target / "samples.md").write_text(page, encoding="utf-8")
    (target / "README.md").write_text(card(facts, counted, args.sources), encoding="utf-8")
    write_checksums()


def draw_curve(target: Path) -> None:
    """The loss over the tokens read, as `training_curve.png`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with (target / "training_log.csv").open(newline="") as f:
        rows = [r for r in csv.DictReader(f) if r["tokens"] != "tokens"]
    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    axes.plot([int(r["tokens"]) / 1e6 for r in rows],
              [float(r["loss_nats_per_token"]) for r in rows], color="#0072B2")  # fmt: skip
    axes.set(xlabel="training tokens (millions)", ylabel="loss (nats per token)",
             title=target.name)  # fmt: skip
    axes.grid(alpha=0.3)
    figure.savefig(target / "training_curve.png", dpi=110)


def card(facts: dict, counted: dict[str, str], sources: Path) -> str:
    """The model card: front matter of the hub's form, then what a reader should know."""
    tokens = facts["training_tokens"] / 1e6
    source = facts.get("grown_from")
    start = (
        f", after those of {source}, from which it was grown (`training/grow.py`)" if source else ""
    )
    counts = "\n".join(f"| {what} | {count} |" for what, count in counted.items())
    return f"""---
license: cc-by-sa-4.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# {facts["model"]}

A GPT-2-architecture language model of {facts["parameters"]:,} parameters ({facts["layers"]} layers,
width {facts["width"]}, {facts["heads"]} heads, context {facts["context"]} tokens, byte-level BPE
vocabulary of 8,192 tokens, tied embeddings), made for the LLM Basics course: small enough to load
in a moment and to answer while a slider moves. The weights are stored in fp16.

## What it is for, and what not

For learning how language models are run, measured and served. **Not** for answers: it writes
text in the manner of what it read, its statements are often wrong, it was not filtered for bias
or harm, and it follows no instructions. English only.

## Training

| | |
| --- | --- |
| tokens seen | {tokens:.1f} million{start} |
| time | {facts["training_minutes"]} minutes |
| machine | {facts["machine"]} |
| recipe | Muon (hidden matrices) and AdamW (the rest), bf16 autocast, constant rate, then linear decay; see `training/` |
| held-out bits per byte (460 KB split off the sources) | {facts["validation_bits_per_byte"]} |
| held-out bits per byte (`models/heldout.md`, written for the course) | {facts["heldout_bits_per_byte"]} |
{counts}

The log is in `training_log.csv`, the curve in `training_curve.png`. Thirty samples, none of them
chosen, and how much of them is copied from the training text: `samples.md`.

{section(facts["model"]) if source else ""}{section("What was tried")}## Data and licence

The model was trained on openly licensed English text, cleaned and shuffled. Part of it is
licensed CC BY-SA, so the weights are released under CC BY-SA 4.0. The sources:

{source_table(sources)}
"""


def section(title: str) -> str:
    """A section of `training/README.md`, its heading with it; nothing if there is none."""
    text = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    _, heading, rest = text.partition(f"## {title}")
    return heading and f"{heading}{rest.partition(chr(10) + '## ')[0].rstrip()}\n\n"


def source_table(sources: Path) -> str:
    """The table of sources, licences and commits, and the notes under it.

    A section after them is about text that lies beside the corpus and was not read.
    """
    text = read_text(sources)
    return text[text.index("| Repository") :].partition("\n## ")[0].strip()


def write_checksums() -> None:
    """`models/SHA256SUMS` over the shipped models and the held-out text, as sha256sum has it.

    What `make model` fetches lies in the same folder, with checksums of its own.
    """
    shipped = [file for name in SHAPES for file in (models_folder() / name).glob("*")]
    lines = []
    for file in sorted([*shipped, models_folder() / "heldout.md"]):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        lines.append(f"{digest}  {file.relative_to(models_folder()).as_posix()}\n")
    (models_folder() / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def main() -> None:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m training.export", description=__doc__)
    p.add_argument("--model", choices=SHAPES, required=True)
    p.add_argument("--work", type=Path, default=Path("training/work"))
    p.add_argument("--corpus", type=Path, required=True, help="the training text")
    p.add_argument("--validation", type=Path, required=True, help="held-out text")
    p.add_argument("--sources", type=Path, required=True, help="Markdown table of the sources")
    p.add_argument("--grown-from", choices=SHAPES, help="the model that training/grow.py doubled")
    p.add_argument("--machine", required=True, help="what it was trained on, in words")
    export(p.parse_args())


if __name__ == "__main__":
    startup.run(main)
