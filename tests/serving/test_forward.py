"""The passes that are written out: logits of transformers' own; any other model goes its way."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

from helpers.settings import GenerationSettings
from serving.engine import packed
from serving.engine.batch import Batch
from serving.engine.forward import (
    Forward,
    GPT2Forward,
    LlamaForward,
    TransformersForward,
    forward_of,
    join_layers,
)
from serving.engine.int8 import quantize_model
from serving.engine.jobs import Job
from serving.engine.packed import pack_linear_layers

SIZES = {"vocab_size": 300, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}
LLAMA = {"intermediate_size": 96, "max_position_embeddings": 64, "num_key_value_heads": 2}
LONG = {"rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 16}
LONG |= {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
PROMPTS = [list(range(5, 9)), list(range(100, 111)), [7], list(range(200, 205))]


def gpt2(**options: object) -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config(n_positions=64, **SIZES, **options))  # type: ignore[arg-type]


def llama(**options: object) -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**SIZES | LLAMA | options))  # type: ignore[arg-type]


def telling(model: PreTrainedModel) -> PreTrainedModel:
    """Untrained weights are too small to tell tokens apart."""
    torch.manual_seed(0)
    for parameter in model.eval().parameters():
        parameter.data.normal_(0, 0.2)
    return model


def steps(model: PreTrainedModel, forward: Forward) -> list[torch.Tensor]:
    """Logits of ragged prompts, read in two chunks, and of two decoding steps."""
    job = Job(60)
    for prompt in PROMPTS:
        job.add(GenerationSettings(temperature=0), prompt, 9)
    batch = Batch(forward, job.sequences, context=64)
    found = [batch.prefill(5, all_logits=True), batch.prefill(6)]
    for token in (11, 12):
        for row in batch.rows:
            row.ids.append(token)
        found.append(batch.decode())
        batch.keep([0, 3])
    real = [max(len(prompt) - 6, 0) for prompt in PROMPTS]  # columns of text in the first chunk
    found[0] = torch.cat([found[0][row, 5 - count :] for row, count in enumerate(real)])
    return found


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (gpt2(layer_norm_epsilon=0.1), GPT2Forward),
        (llama(rms_norm_eps=0.1), LlamaForward),
        (llama(rope_parameters=LONG, tie_word_embeddings=True, mlp_bias=True), LlamaForward),
        (llama(num_key_value_heads=4, attention_bias=True, head_dim=8), LlamaForward),
        (llama(hidden_act="gelu"), TransformersForward),
        (gpt2(activation_function="relu"), TransformersForward),
        (gpt2(scale_attn_by_inverse_layer_idx=True), TransformersForward),
        (MistralForCausalLM(MistralConfig(**SIZES | LLAMA)), TransformersForward),
    ],
)
@torch.inference_mode()
def test_logits_are_those_of_transformers(model: PreTrainedModel, kind: type) -> None:
    one_product = copy.deepcopy(telling(model))
    join_layers(one_product)
    forwards = [forward_of(model), forward_of(one_product)]
    assert [type(forward) for forward in forwards] == [kind, kind]
    for dtype, close in ((torch.float32, 2e-4), (torch.float64, 1e-6)):
        model.to(dtype)
        one_product.to(dtype)
        right = steps(model, TransformersForward(model))
        for forward in forwards:
            found = steps(model, forward)
            torch.testing.assert_close(found, right, atol=close, rtol=close)


@pytest.mark.parametrize("change", [pack_linear_layers, quantize_model])
@torch.inference_mode()
def test_joined_layers_are_packed_and_quantized_as_the_others(
    change: Callable[[PreTrainedModel], int],
) -> None:
    plain = telling(llama(attention_bias=True))
    one_product = copy.deepcopy(plain)
    join_layers(one_product)
    assert change(plain) - change(one_product) == 3 * SIZES["num_hidden_layers"]
    right = steps(plain, forward_of(plain))
    for mine, theirs in zip(steps(one_product, forward_of(one_product)), right, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_layers_that_read_the_same_become_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four products a layer, as many weights as before, none of them twice."""
    given_back: list[tuple[int, ...]] = []
    monkeypatch.setattr(packed, "forget", lambda weight: given_back.append(tuple(weight.shape)))
    model = llama(attention_bias=True)
    right = {name: one.shape for name, one in model.named_parameters()}
    join_layers(model)
    assert given_back == 2 * [(64, 64), (32, 64), (32, 64), (96, 64), (96, 64)]
    linear = [one for one in model.modules() if type(one) is torch.nn.Linear]
    assert len(linear) == 4 * SIZES["num_hidden_layers"] + 1
    count = sum(one.numel() for one in model.parameters())
    assert count == sum(shape.numel() for shape in right.values())
    left, others = gpt2(), dict(gpt2().named_parameters())
    join_layers(left)
    assert dict(left.named_parameters()).keys() == others.keys()
