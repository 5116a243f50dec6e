"""Lesson 08: what its cells teach by hand and what it measures with, against the real thing."""

from __future__ import annotations

import ast
import functools
import importlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from torch import nn
from transformers import DynamicCache

import helpers
from classroom import gguf, inference, roofline, trials
from classroom.widgets import RooflineCalculator
from helpers.generator import TextGenerator
from helpers.quality import bits_per_byte
from serving.engine.int8 import quantize_model
from system.errors import ParameterError
from tests.conftest import ROOT

LESSON = ROOT / "notebooks" / "08_faster_inference.ipynb"
MODEL, DRAFT = "course-gpt-4m", "course-gpt-1m"
PROMPT = "The history of the city of"
TEXT = inference.HELD_OUT.read_text("utf-8")[:400]


@pytest.fixture(scope="module")
def taught() -> dict[str, Any]:
    """The functions and classes that the lesson's cells define, as they stand there."""
    names: dict[str, Any] = {"torch": torch, "np": np, "nn": nn, "DynamicCache": DynamicCache}
    names["time"] = importlib.import_module("time")
    for cell in nbformat.read(LESSON, as_version=4).cells:
        if cell.cell_type == "code" and not cell.source.startswith("# Question"):
            parts = ast.parse(cell.source).body
            kept = [p for p in parts if isinstance(p, ast.FunctionDef | ast.ClassDef)]
            exec(compile(ast.Module(kept, []), str(LESSON), "exec"), names)
    return names


@pytest.fixture(scope="module")
def base() -> TextGenerator:
    return helpers.load(MODEL, "cpu")


@pytest.fixture(scope="module")
def draft() -> TextGenerator:
    return helpers.load(DRAFT, "cpu")


# --- speculative decoding -----------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 6])
def test_speculation_writes_what_the_target_writes(
    k: int, taught: dict[str, Any], base: TextGenerator, draft: TextGenerator
) -> None:
    ids = base.encode(PROMPT)
    for target, small in ((base.model, draft.model), (draft.model, base.model)):
        alone = target.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), do_sample=False,
            max_new_tokens=32, pad_token_id=0,
        )[0].tolist()  # fmt: skip
        text, accepted = taught["speculate"](target, small, ids, 32, k)
        assert text == alone and 0 <= min(accepted) <= max(accepted) <= k
        assert len(ids) + 32 <= len(ids) + sum(n + 1 for n in accepted) <= len(ids) + 32 + k


def test_a_draft_like_the_target_is_always_accepted(
    taught: dict[str, Any], draft: TextGenerator
) -> None:
    _, accepted = taught["speculate"](draft.model, draft.model, draft.encode(PROMPT), 20, 4)
    assert accepted == [4, 4, 4, 4]


def surprise(counts: np.ndarray[Any, Any], p: torch.Tensor) -> float:
    """Pearson's chi squared, in standard deviations above what chance gives."""
    expected = counts.sum() * p.numpy()
    found = float(((counts - expected) ** 2 / expected).sum())
    return (found - (len(p) - 1)) / (2 * (len(p) - 1)) ** 0.5


def test_sampled_tokens_have_the_targets_distribution(taught: dict[str, Any]) -> None:
    torch.manual_seed(3)
    p, q = (torch.softmax(1.5 * torch.randn(12), 0) for _ in range(2))
    drafts = torch.multinomial(q, 6000, replacement=True).tolist()
    chosen = [taught["choose"](p, q, token) for token in drafts]
    assert surprise(np.bincount(chosen, minlength=12), p) < 4
    assert surprise(np.bincount(drafts, minlength=12), p) > 40, "the test sees no difference"


# --- fewer bytes --------------------------------------------------------------------------


def test_four_bits_there_and_back(taught: dict[str, Any]) -> None:
    numbers = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
    raw = taught["pack"](numbers)
    back = np.asarray(taught["unpack"](raw))
    assert len(raw) == numbers.size / 32 * 20
    rows = numbers.reshape(-1, 32)
    step = (rows.max(1) - rows.min(1)) / 15
    assert (np.abs(back - rows).max(1) <= 0.52 * step + 4e-3).all()
    assert taught["pack"](back) == raw
    low_first = struct.pack("<2e", 0.5, -1) + bytes([0x21] * 16)
    assert taught["unpack"](low_first).tolist() == [[-0.5] * 16 + [0.0] * 16]


@pytest.mark.parametrize("kind", ["ByHand", "OneKernel"])
def test_int8_weights_are_close(kind: str, taught: dict[str, Any]) -> None:
    torch.manual_seed(0)
    weight, bias, x = torch.randn(48, 64), torch.randn(48), torch.randn(2, 5, 64)
    for of in (bias, None):
        right = nn.functional.linear(x, weight, of)
        got = taught[kind](weight, of)(x)
        assert got.shape == right.shape and got.dtype == torch.float32
        assert (got - right).abs().max() < 0.02 * right.abs().max()


@pytest.mark.parametrize(
    ("change", "share"),
    [
        (inference.to_bfloat16, 1 / 2),
        (quantize_model, 1 / 4),
        (lambda model: inference.change_weights(model, lambda w: w.copy()), 1),
    ],
    ids=["bfloat16", "the service's int8", "the same numbers"],
)
def test_bytes_and_quality_of_a_format(change: Callable[..., Any], share: float) -> None:
    one = helpers.load(DRAFT, "cpu")
    plain = inference.step_bytes(one.model)
    right = inference.quality(one.model, one.tokenizer, TEXT)
    assert right.bits == bits_per_byte(one.model, one.tokenizer, TEXT, inference.CONTEXT)
    change(one.model)
    assert inference.step_bytes(one.model) == share * plain
    now = inference.quality(one.model, one.tokenizer, TEXT)
    assert (now.agreement(right) == 100) == (share == 1) or share == 1 / 2
    assert now.bits == (right.bits if share == 1 else pytest.approx(right.bits, rel=0.05))
    assert 60 < now.agreement(right) <= 100


def test_replaced_layers_compute_the_same(draft: TextGenerator) -> None:
    """Weights come with outputs first, also from layers that keep them the other way round."""
    one, ids = helpers.load(DRAFT, "cpu"), torch.tensor([draft.encode(PROMPT)])

    def plain(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Module:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        layer.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
        return layer

    inference.replace_layers(one.model, plain)
    with torch.inference_mode():
        torch.testing.assert_close(one.model(ids).logits, draft.model(ids).logits)


def gguf_file(path: Path, kind: int, data: bytes) -> Path:
    """A file with two facts and one tensor of 2 × 32 numbers."""

    def text(words: str) -> bytes:
        return struct.pack("<Q", len(words)) + words.encode()

    facts = text("general.alignment") + struct.pack("<II", 4, 64)
    facts += text("words") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("bc")
    listed = text("w") + struct.pack("<IQQIQ", 2, 32, 2, kind, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 2) + facts + listed
    path.write_bytes(head + b"\0" * (-len(head) % 64) + data)
    return path


def test_gguf_is_read(tmp_path: Path, taught: dict[str, Any]) -> None:
    numbers = np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)
    data = taught["pack"](numbers)
    path = gguf_file(tmp_path / "small.gguf", 3, data)
    (stored,) = gguf.tensors(path).values()
    assert (stored.kind, stored.shape, stored.nbytes) == ("Q4_1", (2, 32), 40)
    assert gguf.read(path, stored) == data
    with pytest.raises(ParameterError, match=r"unknown\.gguf.* Q4_1"):
        gguf.tensors(gguf_file(tmp_path / "unknown.gguf", 99, data))
    (tmp_path / "no.gguf").write_bytes(b"PK")
    with pytest.raises(ParameterError, match="it begins with GGUF"):
        gguf.tensors(tmp_path / "no.gguf")


# --- engines and limits -------------------------------------------------------------------


def test_ctranslate2_is_the_same_model(tmp_path: Path, draft: TextGenerator) -> None:
    folder = inference.convert(DRAFT, tmp_path)
    engine = inference.Translated(folder, "float32", draft.tokenizer)
    ids = draft.encode(PROMPT)
    with torch.inference_mode():
        right = draft.model(torch.tensor([ids])).logits
    torch.testing.assert_close(engine(torch.tensor([ids])).logits, right, atol=1e-3, rtol=1e-3)
    alone = draft.generate(PROMPT, max_new_tokens=12, temperature=0).new_ids[0]
    assert engine.write(ids, 12, rows=3)[: len(alone)] == alone
    assert engine.seconds_a_step(ids, 2) > 0


def test_the_parts_of_a_step_are_found() -> None:
    # No bias: on a busy machine copying it to every row may take as long as the product. What
    # others take from us counts as time between the operations: a larger product outweighs it.
    layer, most = nn.Linear(512, 2048, bias=False), ""
    for rows in (64, 512, 4096):
        x = torch.ones(rows, 512)
        parts = inference.step_parts(functools.partial(layer, x), 2)
        most = max(parts, key=lambda name: parts[name])
        if most == "linear layers":
            break
    assert most == "linear layers" and parts["attention"] == 0
    attention = nn.functional.scaled_dot_product_attention
    many = torch.ones(1, 4, 256, 64)
    parts = inference.step_parts(lambda: attention(many, many, many), 2)
    assert parts["attention"] > parts["linear layers"] == 0


def test_a_step_takes_as_long_as_the_slower_of_memory_and_arithmetic() -> None:
    found = roofline.step(7e9, 4, 1, 280e9, 10e12)
    assert found.bound == "memory" and found.tokens_per_s == pytest.approx(80)
    found = roofline.step(1e9, 32, 4000, 4e9, 2e12)
    assert found.bound == "arithmetic" and found.tokens_per_s == pytest.approx(1000)
    turn = int(roofline.ridge(8, 1e9, 64e9))
    bounds = [roofline.step(1e6, 8, n, 1e9, 64e9).bound for n in (turn, turn + 1)]
    assert turn == 32 and bounds == ["memory", "arithmetic"]
    with_cache = roofline.step(1e6, 8, 4, 1e9, 64e9, kv_bytes=1e6)
    assert with_cache.reading_s == pytest.approx(5e-3)
    with pytest.raises(ParameterError, match="bandwidth"):
        roofline.step(1e6, 8, 1, 0, 1e9)


def test_the_roofline_calculator_follows_its_sliders() -> None:
    shown = RooflineCalculator({"a": 1e9, "b": 2e9}, 40e9, 800e9)
    assert "a: at most 10 tokens/s" in shown.shown.value and "limit is memory" in shown.shown.value
    shown.bits.value = 8
    assert "at most 40 tokens/s" in shown.shown.value
    shown.model.value = "b"
    assert "b: at most 20 tokens/s" in shown.shown.value
    shown.rows.value = 1024
    assert "at most 200 tokens/s" in shown.shown.value and "is arithmetic" in shown.shown.value
    with pytest.raises(ParameterError, match="models"):
        RooflineCalculator({}, 1e9, 1e9)
    with pytest.raises(ParameterError, match="peak"):
        RooflineCalculator({"a": 1e9}, 1e9, 0)


# --- techniques, tried ---------------------------------------------------------------------


def test_techniques_are_compared_with_the_first_one_of_their_model() -> None:
    def decode(model: nn.Module, ids: list[int], rows: int) -> float:
        with torch.inference_mode():
            assert model(torch.tensor([ids] * rows)).logits.shape[0] == rows
        return 0.5 * rows  # seconds a step: as slow for each text

    def half(model: nn.Module) -> None:
        inference.change_weights(model, lambda w: w / 2)

    note = trials.Trials(decode, PROMPT, TEXT)
    note.try_out("float32", DRAFT, lambda model: None)
    note.try_out("half", DRAFT, half)
    assert note.said(DRAFT).splitlines()[0] == "measured: float32, half"
    note("elsewhere", DRAFT, {1: 0.25}, note.size[DRAFT] / 4)
    note.first(DRAFT, {1: 0.1}, 1)
    assert len(note.rows) == 3, "its float32 was noted before"
    table = note.table().loc[DRAFT]
    assert list(table["tokens/s, 1 text"]) == [2, 2, 4] and table["times the first"].iloc[2] == 2
    assert list(table["tokens/s, 8 texts"][:2]) == [2, 2]
    assert table["agreement (%)"].iloc[0] == 100 > table["agreement (%)"].iloc[1]
    assert table["bits per byte"].iloc[1] > table["bits per byte"].iloc[0]
    assert note.exact[DRAFT].bits == note.rows[0]["bits"]
    assert np.isnan(table[["tokens/s, 8 texts", "bits per byte", "agreement (%)"]].iloc[2]).all()


def test_what_is_timed_is_what_runs(draft: TextGenerator) -> None:
    calls: list[int] = []
    assert trials.clock(lambda: "said")[0] == "said"
    assert trials.best(lambda: calls.append(1), times=3) >= 0 and len(calls) == 3
    again = trials.next_step(draft, PROMPT)
    assert again().logits.shape[:2] == (1, 1)
    weight = trials.weight_of(DRAFT, "transformer.h.0.mlp.c_fc")
    loaded = draft.model.get_submodule("transformer.h.0.mlp.c_fc").get_parameter("weight")
    assert np.array_equal(weight, loaded.detach().numpy())
    with_kernels = trials.runs_here({"float32": 1, trials.X86[0]: 2})
    assert "float32" in with_kernels
