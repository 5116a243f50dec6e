"""One pass through the model: GPT-2's and Llama's written out, any other's by transformers.

transformers' own passes serve every model and every option, and ask about them at each step: for
one row of a small model that takes as long as its matrix products. Here stands what these
two families compute, and nothing else. A model of another family, or with an option that is not
written here, runs through transformers. (Lesson 08.)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, rms_norm, scaled_dot_product_attention, silu
from transformers import DynamicCache, GPT2LMHeadModel, LlamaForCausalLM, PreTrainedModel

from serving.engine.packed import joined

Part = Callable[[Tensor], Tensor]  # a layer: linear, a norm, an embedding


@dataclass(frozen=True)
class Step:
    """New columns of a batch, of which each row holds one token.

    Attributes:
        tokens: ids (rows, new columns).
        positions: of these tokens in their texts, the same shape.
        padding: how many columns on the left of each row hold no text.
        width: columns in all, the new ones included.
        cache: keys and values of the columns before; the new ones are added.
        all_logits: of every new column, else of the last.
    """

    tokens: Tensor
    positions: Tensor
    padding: list[int]
    width: int
    cache: DynamicCache
    all_logits: bool

    @property
    def text(self) -> Tensor:
        """(rows, width) of bool: where the columns hold text."""
        device = self.tokens.device
        padding = torch.tensor(self.padding, device=device)
        return torch.arange(self.width, device=device) >= padding[:, None]

    def mask(self, dtype: torch.dtype) -> Tensor | None:
        """What is added to attention scores: (rows, 1, new columns, width); None for zeros.

        Padding gets the smallest number rather than -inf: a column that sees nothing at all
        would be NaN, and spoil those that see it with a weight of 0.
        """
        new = self.tokens.shape[1]
        if new == 1 and not any(self.padding):
            return None
        columns = torch.arange(self.width, device=self.tokens.device)
        seen = self.text[:, None] & (columns <= columns[-new:, None])
        mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
        return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


class Forward(Protocol):
    """A model as the engine calls it."""

    device: torch.device

    def __call__(self, step: Step) -> Tensor:
        """Logits in float32: (rows, vocabulary), or of all columns (rows, columns, vocabulary)."""


def forward_of(model: PreTrainedModel) -> Forward:
    """The quickest way through a model that gives its own results."""
    if type(model) is GPT2LMHeadModel and _only(model, _GPT2_OPTIONS):
        return GPT2Forward(model)
    if _is_llama(model):
        return LlamaForward(cast(LlamaForCausalLM, model))
    return TransformersForward(model)


def join_layers(model: PreTrainedModel) -> None:
    """Make one linear layer of those that read the same numbers: fewer and larger products.

    Args:
        model: a Llama changes in place and can then run only as written here; GPT-2 has its
            layers joined from the start, and others stay as they are.
    """
    if _is_llama(model):
        for layer in cast(LlamaForCausalLM, model).model.layers:
            for parent, names, name in ((layer.self_attn, *_QKV), (layer.mlp, *_GATE_UP)):
                setattr(parent, name, joined([getattr(parent, part) for part in names]))
                for part in names:
                    delattr(parent, part)


_GPT2_OPTIONS = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}
_LLAMA_OPTIONS = {"hidden_act": ("silu", "swish")}
_QKV = (("q_proj", "k_proj", "v_proj"), "qkv_proj")  # and the name of the joined layer
_GATE_UP = (("gate_proj", "up_proj"), "gate_up_proj")


def _is_llama(model: PreTrainedModel) -> bool:
    return type(model) is LlamaForCausalLM and _only(model, _LLAMA_OPTIONS)


def _only(model: PreTrainedModel, options: Mapping[str, tuple[object, ...]]) -> bool:
    """Whether a model has no other options than these."""
    return all(getattr(model.config, name) in allowed for name, allowed in options.items())


class TransformersForward:
    """Any decoder-only model with plain attention."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.device = model, model.device
        self._takes = inspect.signature(model.forward).parameters

    def __call__(self, step: Step) -> Tensor:
        """Logits, as `Forward` has them."""
        arguments: dict[str, Any] = {"position_ids": step.positions}
        if not step.all_logits:
            arguments["logits_to_keep"] = 1  # the vocabulary is wide: compute one column
        output = self.model(
            input_ids=step.tokens,
            attention_mask=step.text.long(),
            past_key_values=step.cache,
            use_cache=True,
            **{name: value for name, value in arguments.items() if name in self._takes},
        )
        return output.logits.float() if step.all_logits else output.logits[:, -1].float()


class GPT2Layer(NamedTuple):
    """Attention and a small network, each behind a norm."""

    norm1: Part
    qkv: Part
    out: Part
    norm2: Part
    up: Part
    down: Part


class GPT2Forward:
    """Learned positions, layer norms, GELU."""

    def __init__(self, model: GPT2LMHeadModel) -> None:
        body, self.device = model.transformer, model.device
        self.words, self.places = body.wte, body.wpe
        self.norm, self.output = body.ln_f, model.lm_head
        self.layers = [
            GPT2Layer(b.ln_1, b.attn.c_attn, b.attn.c_proj, b.ln_2, b.mlp.c_fc, b.mlp.c_proj)
            for b in body.h
        ]
        self.split = (3, model.config.n_head, model.config.n_embd // model.config.n_head)

    def __call__(self, step: Step) -> Tensor:
        """Logits, as `Forward` has them."""
        x = self.words(step.tokens) + self.places(step.positions)
        mask, (rows, new, hidden) = step.mask(x.dtype), x.shape
        for i, layer in enumerate(self.layers):
            qkv = layer.qkv(layer.norm1(x)).view(rows, new, *self.split)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (rows, heads, new, size)
            keys, values = step.cache.update(k, v, i)
            seen = scaled_dot_product_attention(q, keys, values, mask)
            x = x + layer.out(seen.transpose(1, 2).reshape(rows, new, hidden))
            x = x + layer.down(gelu(layer.up(layer.norm2(x)), approximate="tanh"))
        return _logits(step, x, self.norm, self.output)


class LlamaLayer(NamedTuple):
    """The same with a gate, and with fewer heads of keys and values than of queries."""

    norm1: Tensor
    qkv: Part
    out: Part
    norm2: Tensor
    gate_up: Part
    down: Part


class LlamaForward:
    """Rotary positions, root-mean-square norms, gated SiLU."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        body, config, self.device = model.model, model.config, model.device
        self.words, self.output = body.embed_tokens, model.lm_head
        self.epsilon, self.norm = config.rms_norm_eps, body.norm.weight
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.size = body.layers[0].self_attn.head_dim
        self.layers = [
            LlamaLayer(
                layer.input_layernorm.weight,
                _together(layer.self_attn, *_QKV),
                layer.self_attn.o_proj,
                layer.post_attention_layernorm.weight,
                _together(layer.mlp, *_GATE_UP),
                layer.mlp.down_proj,
            )
            for layer in body.layers
        ]
        self.angles = body.rotary_emb  # transformers': it knows all ways to stretch a context

    def __call__(self, step: Step) -> Tensor:
        """Logits, as `Forward` has them."""
        x = self.words(step.tokens)
        mask, (rows, new, _) = step.mask(x.dtype), x.shape
        group = self.heads // self.kv_heads
        if mask is not None:  # once for each of the heads that stand together
            mask = mask.repeat(1, 1, group, 1)
        cos, sin = (part[:, None] for part in self.angles(x, step.positions))
        sin[..., : self.size // 2] *= -1
        for i, layer in enumerate(self.layers):
            qkv = layer.qkv(self._norm(x, layer.norm1)).view(rows, new, -1, self.size)
            qkv = qkv.transpose(1, 2)  # (rows, heads of all three, new, size)
            qk, v = qkv[:, : -self.kv_heads], qkv[:, -self.kv_heads :]
            qk = _rotated(qk, cos, sin)
            keys, values = step.cache.update(qk[:, self.heads :], v, i)
            # Heads of queries that share keys and values stand below each other, like columns.
            q = qk[:, : self.heads].reshape(rows, -1, group * new, self.size)
            seen = scaled_dot_product_attention(q, keys, values, mask)
            seen = seen.reshape(rows, -1, new, self.size).transpose(1, 2)
            x = x + layer.out(seen.reshape(rows, new, -1))
            gate, up = layer.gate_up(self._norm(x, layer.norm2)).chunk(2, -1)
            x = x + layer.down(silu(gate) * up)
        return _logits(step, x, partial(self._norm, weight=self.norm), self.output)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(x, weight.shape, weight, self.epsilon)


def _together(parent: nn.Module, names: tuple[str, ...], name: str) -> Part:
    """What these layers of `parent` give, one behind the other: by one product if joined."""
    if hasattr(parent, name):
        return cast(Part, getattr(parent, name))
    parts = [getattr(parent, part) for part in names]
    return lambda x: torch.cat([part(x) for part in parts], -1)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: each number is turned with the one that lies half a head further.

    Args:
        x: (rows, heads, new, size).
        cos: of the angles, (rows, 1, new, size).
        sin: the same, the first half negative.
    """
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def _logits(step: Step, x: Tensor, norm: Part, output: Part) -> Tensor:
    """From the last layer's numbers (rows, new, hidden)."""
    if step.all_logits:
        return output(norm(x)).float()
    return output(norm(x[:, -1])).float()
