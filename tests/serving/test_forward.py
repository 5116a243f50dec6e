"""The passes that are written out: logits of transformers' own; any other model goes its way."""

from __future__ import annotations

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
from serving.engine.batch import Batch
from serving.engine.forward import (
    Forward,
    GPT2Forward,
    LlamaForward,
    TransformersForward,
    forward_of,
)
from serving.engine.jobs import Job

SIZES = {"vocab_size": 300, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}
LLAMA = {"intermediate_size": 96, "max_position_embeddings": 64, "num_key_value_heads": 2}
LONG = {"rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 16}
LONG |= {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
PROMPTS = [list(range(5, 9)), list(range(100, 111)), [7], list(range(200, 205))]


def gpt2(**options: object) -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config(n_positions=64, **SIZES, **options))  # type: ignore[arg-type]


def llama(**options: object) -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**SIZES | LLAMA | options))  # type: ignore[arg-type]


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
    torch.manual_seed(0)
    model.eval()
    for parameter in model.parameters():  # untrained weights are too small to tell tokens apart
        parameter.data.normal_(0, 0.2)
    forward = forward_of(model)
    assert type(forward) is kind
    for dtype, close in ((torch.float32, 2e-4), (torch.float64, 1e-6)):
        model.to(dtype)
        found, right = steps(model, forward), steps(model, TransformersForward(model))
        torch.testing.assert_close(found, right, atol=close, rtol=close)
