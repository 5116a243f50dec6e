"""Weights of one byte: close to float32, the same in any company, no float32 copy left."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from helpers.models import load_model, models_folder
from helpers.settings import GenerationSettings
from serving.engine import int8
from serving.engine.engine import Engine
from serving.engine.int8 import Int8Embedding, Int8Linear, check_int8, quantize, quantize_model
from serving.engine.jobs import Job
from serving.engine.loading import load_for_engine
from system.errors import ParameterError
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(
    int8.ENGINE not in torch.backends.quantized.supported_engines, reason="int8 is for x86 CPUs"
)


def test_integers_and_scales_give_the_weights_back() -> None:
    weight = torch.randn(50, 40) * torch.logspace(-4, 3, 50)[:, None]
    weight[7] = 0
    integers, scale = quantize(weight)
    assert integers.dtype == torch.int8 and int(integers.abs().max()) == 127
    error = (integers * scale[:, None] - weight).abs().amax(1)
    assert (error <= scale * 0.5001).all() and (integers[7] == 0).all()
    before = torch.backends.quantized.engine
    looked_up = Int8Embedding(weight)(torch.tensor([[3, 7], [49, 3]]))
    torch.testing.assert_close(looked_up[1, 0], integers[49] * scale[49])
    assert looked_up.shape == (2, 2, 40) and torch.backends.quantized.engine == before


def test_a_layer_is_close_and_its_rows_do_not_depend_on_each_other() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(96, 64)
    layer = Int8Linear(linear.weight, linear.bias)
    x = torch.randn(3, 5, 96) * torch.tensor([1e-3, 1.0, 300.0])[:, None, None]
    x[0, 1] = 0
    with torch.inference_mode():
        got, want = layer(x), linear(x)
        for row in range(3):
            assert torch.equal(layer(x[row, 2:3]), got[row, 2:3])
            product, right = got[row] - linear.bias, want[row] - linear.bias
            assert (product - right).norm() < 0.03 * right.norm()
        assert torch.equal(got[0, 1], linear.bias)
        x[1, 0, 0] = torch.nan
        assert layer(x)[1, 0].isnan().all() and torch.equal(layer(x)[1, 1:], got[1, 1:])


def test_the_largest_sums_do_not_overflow() -> None:
    layer = Int8Linear(torch.ones(4, 512), None)
    x = torch.ones(1, 512)
    torch.testing.assert_close(layer(x), torch.full((1, 4), 512.0), rtol=1e-3, atol=0)
    torch.testing.assert_close(layer(-x), torch.full((1, 4), -512.0), rtol=1e-3, atol=0)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_no_float32_weights_are_left_but_of_norms_and_positions(architecture: str) -> None:
    if architecture == "gpt2":
        model, _ = load_model("course-gpt-1m", "cpu")
        allowed = {"wpe", "ln_1", "ln_2", "ln_f", "bias"}
    else:
        sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
        config = LlamaConfig(
            vocab_size=512, num_attention_heads=4, tie_word_embeddings=True, **sizes
        )
        model = AutoModelForCausalLM.from_config(config).eval()
        allowed = {"input_layernorm", "post_attention_layernorm", "norm"}
    before = sum(isinstance(m, nn.Linear) or "Conv1D" in str(type(m)) for m in model.modules())
    assert quantize_model(model) == before > 8
    for name, _ in [*model.named_parameters(), *model.named_buffers()]:
        assert allowed & set(name.split(".")) or "inv_freq" in name, name
    assert isinstance(model.get_input_embeddings(), Int8Embedding)


def test_texts_of_the_engine_do_not_depend_on_the_batch() -> None:
    """The same model by itself and in company: what int8 adds nothing to."""
    loaded = load_for_engine("course-gpt-1m", "cpu", "int8", 8)
    engine = Engine(*loaded, slots=8)
    engine.start()
    assert engine.dtype == "int8"
    plain = load_model("course-gpt-1m", "cpu")[0]
    prompts = [list(range(n, 40 + 3 * n)) for n in range(8)]

    def texts(groups: list[list[int]]) -> dict[int, list[int]]:
        found = {}
        for group in groups:
            job = Job(60, ignore_end=True)
            for n in group:
                job.add(GenerationSettings(temperature=0), prompts[n], 8)
            engine.submit(job)
            for _ in job.updates():
                pass
            found |= dict(zip(group, [row.ids for row in job.sequences], strict=True))
        return found

    alone, together = texts([[n] for n in range(8)]), texts([list(range(8))])
    engine.close()
    tokens = [(a, b) for n in range(8) for a, b in zip(alone[n], together[n], strict=True)]
    assert sum(a == b for a, b in tokens) >= 0.95 * len(tokens)
    text = (models_folder() / "heldout.md").read_text("utf-8")[:2000]
    ids = torch.tensor([loaded[1](text)["input_ids"][:400]])
    with torch.inference_mode():
        right, got = plain(input_ids=ids).logits, loaded[0](input_ids=ids).logits
    assert (right.argmax(-1) == got.argmax(-1)).float().mean() > 0.85


def test_where_int8_cannot_be_computed_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_int8("cpu")
    with pytest.raises(ParameterError, match=r"dtype.*int8.*float16 on cuda:0: int8 is for x86"):
        load_for_engine("no such model", "cuda:0", "int8", 8)
    monkeypatch.setattr(int8, "ENGINE", "none")
    with pytest.raises(ParameterError, match="this processor"):
        check_int8("cpu")


def test_the_setting_takes_the_formats_only() -> None:
    command, wrong = [sys.executable, "-m", "serving"], os.environ | {"LLM_DTYPE": "int4"}
    ended = subprocess.run(command, cwd=ROOT, env=wrong, capture_output=True, text=True)
    assert ended.returncode != 0 and not ended.stdout and len(ended.stderr.splitlines()) == 1
    assert "LLM_DTYPE='int4'" in ended.stderr and "float16 or int8" in ended.stderr
