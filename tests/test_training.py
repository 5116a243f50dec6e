"""The training code trains, stops, goes on where it stopped, and lowers the loss."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
WORDS = "the cache holds keys and values so that a token is computed once for every layer".split()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = random.Random(0)
    documents = []
    for n in range(300):
        documents.append(" ".join(rng.choices(WORDS, k=40)) + f" {n}.")
        documents.append(f"Q: What is number {n}?\nA: It is the number after {n - 1}, of course.")
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("\n<|endoftext|>\n".join(documents), encoding="utf-8")
    return path


def train(
    corpus: Path, work: Path, tokens: int, workers: int = 1, more: str = ""
) -> subprocess.CompletedProcess:
    options = f"--model course-gpt-1m --tokens {tokens} --batch-tokens 1024 --workers {workers}"
    options += more
    return subprocess.run(
        [sys.executable, "-m", "training.train", "--corpus", str(corpus), "--work", str(work),
         *options.split(), "--no-compile", "--log-seconds", "0", "--validation", str(corpus)],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip


def losses(work: Path) -> list[float]:
    with (work / "course-gpt-1m" / "log.csv").open() as f:
        return [float(row["loss_nats_per_token"]) for row in csv.DictReader(f)]


@pytest.mark.slow
def test_trains_and_resumes(corpus: Path, tmp_path: Path) -> None:
    first = train(corpus, tmp_path, 8 * 1024)
    assert first.returncode == 0, first.stderr
    assert "held-out bits per byte" in first.stdout
    before = losses(tmp_path)
    assert len(before) == 8 and before[-1] < before[0]

    again = train(corpus, tmp_path, 16 * 1024)
    assert again.returncode == 0, again.stderr
    assert "resumed at 8,192 tokens" in again.stdout
    after = losses(tmp_path)
    assert len(after) == 16 and min(after[8:]) < min(before)
    state = torch.load(tmp_path / "course-gpt-1m" / "checkpoint.pt", weights_only=True)
    assert state["tokens"] == 16 * 1024


@pytest.mark.soak
def test_two_processes_share_gradients(corpus: Path, tmp_path: Path) -> None:
    result = train(corpus, tmp_path, 4 * 1024, workers=2)
    assert result.returncode == 0, result.stderr
    assert losses(tmp_path)[-1] < losses(tmp_path)[0]


@pytest.mark.soak
def test_goes_on_from_the_shipped_weights(corpus: Path, tmp_path: Path) -> None:
    folder = ROOT / "models" / "course-gpt-1m"
    seen = json.loads((folder / "training.json").read_text())["training_tokens"]
    result = train(corpus, tmp_path, seen + 2048, workers=2, more=" --shipped")
    assert result.returncode == 0, result.stderr
    assert f"shipped weights, at {seen:,} tokens" in result.stdout
    assert (tmp_path / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert losses(tmp_path)[0] < 7  # random weights begin at ln 8192 = 9.0


@pytest.mark.slow
def test_missing_corpus_is_one_line(tmp_path: Path) -> None:
    result = train(tmp_path / "absent.txt", tmp_path, 1024)
    assert result.returncode == 2
    assert result.stderr.strip().splitlines()[-1].endswith("absent.txt: no such file")


def test_documents_are_single_pairs(corpus: Path) -> None:
    from training.data import read_documents, weight

    page = corpus.with_name("page.txt")
    page.write_text(
        "Q: What is a pod?\nA: A pod is the smallest unit.\n\nQ: What is a node?\n"
        "A: A node is a machine of the cluster.\n<|endoftext|>\ntoo short",
        encoding="utf-8",
    )
    documents = read_documents(page)
    assert [d.count("Q:") for d in documents] == [1, 1]
    assert weight(documents[0]) > weight("A long history of a small town in the mountains. " * 5)


def test_a_grown_model_computes_the_same() -> None:
    from training.grow import grow
    from training.train import Shape, new_model

    torch.manual_seed(0)
    small = new_model(Shape(width=32, layers=2, heads=2), end=0).eval()
    large = new_model(Shape(width=64, layers=3, heads=4), end=0).eval()
    ids = torch.randint(0, 8192, (2, 20))
    with torch.inference_mode():
        expected = small(input_ids=ids).logits
        assert not torch.allclose(large(input_ids=ids).logits, expected, atol=1e-3)
        large.load_state_dict(grow(small.state_dict(), large.state_dict()))
        torch.testing.assert_close(large(input_ids=ids).logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", [(24, 40), (40, 24)])
def test_muons_iteration_is_torchs_but_for_the_format(shape: tuple[int, int]) -> None:
    """Where torch's own is replaced, it is by this name; torch rounds to bfloat16."""
    from torch.optim import _muon

    from training.train import orthogonal

    assert _muon._zeropower_via_newtonschulz is not orthogonal, "replaced in this process already"
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    given = (grad, (3.4445, -4.7750, 2.0315), 5, 1e-7)
    theirs = _muon._zeropower_via_newtonschulz(*given).float()
    torch.testing.assert_close(orthogonal(*given), theirs, atol=0.03, rtol=0)


def test_copied_runs_are_counted() -> None:
    from training.samples import copied

    training = ["a b c d e f g h i j", "one two three four five six seven eight"]
    groups = {
        "all": ["x a b c d e f g h y"],  # ten words: three runs, one of them copied
        "across documents": ["g h i j one two three four"],
        "too short": ["a b c"],
    }
    assert copied(groups, training) == {
        "all": (1, 3),
        "across documents": (0, 1),
        "too short": (0, 0),
    }


def test_every_card_has_its_thirty_samples() -> None:
    from helpers.generator import load
    from training.samples import PROMPTS, SAMPLE_TOKENS, TEMPERATURES

    assert len(PROMPTS) * len(TEMPERATURES) == 30
    for folder in sorted((ROOT / "models").glob("course-gpt-*")):
        page = (folder / "samples.md").read_text(encoding="utf-8")
        assert page.count("```text\n") == 30
        # As the card says: written by this model, with this seed.
        greedy = load(folder.name, "cpu").generate(
            PROMPTS[0], temperature=0.0, max_new_tokens=SAMPLE_TOKENS, seed=0
        )
        assert f"```text\n{greedy.text.strip()}\n```" in page
