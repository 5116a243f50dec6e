"""Choosing the next token of every row of a step at once, as transformers would. (Lesson 09.)

transformers' logits processors work on rows that share their parameters; here each row
has its own. What they do is done for all rows in a few tensor operations: on 32 rows
that costs a tenth of calling the processors row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from helpers.settings import GenerationSettings

NUCLEUS = 512  # columns that are tried first for top-p over a whole vocabulary


class Row(Protocol):
    """What sampling needs to know of a row; `engine` passes its sequences."""

    settings: GenerationSettings
    ids: list[int]
    generator: torch.Generator | None


def next_tokens(logits: Tensor, rows: Sequence[Row]) -> list[int]:
    """One token id for each row; -1 where the logits hold no number to choose by.

    Args:
        logits: (rows, vocabulary), left unchanged.
        rows: the settings, token ids so far and random generator of each row.
    """
    scores = _without_repeats(_penalised(logits.float(), rows), rows)
    tokens = scores.argmax(-1)
    usable = scores.gather(1, tokens[:, None])[:, 0].isfinite()
    sampled = [i for i, row in enumerate(rows) if not row.settings.greedy]
    for kind in (_narrow, _nucleus, _whole):
        group = [i for i in sampled if kind(rows[i].settings)]
        if group:
            settings = [rows[i].settings for i in group]
            values, columns = candidates(scores[group], settings)
            noise = _noise([rows[i] for i in group], scores)
            best = (values + noise.gather(1, columns)).argmax(-1, keepdim=True)
            tokens[group] = columns.gather(1, best)[:, 0]
    return tokens.where(usable, -1).tolist()


def _narrow(settings: GenerationSettings) -> bool:
    return settings.top_k > 0


def _nucleus(settings: GenerationSettings) -> bool:
    return settings.top_k == 0 and settings.top_p < 1.0


def _whole(settings: GenerationSettings) -> bool:
    return settings.top_k == 0 and settings.top_p == 1.0


def candidates(scores: Tensor, settings: Sequence[GenerationSettings]) -> tuple[Tensor, Tensor]:
    """The tokens that each row may draw: temperature, then top-k, then top-p.

    Args:
        scores: (rows, vocabulary) of float32.
        settings: one a row, all narrow, all nucleus or all whole.

    Returns:
        values and columns, both (rows, k): logits after the temperature, -inf where the
        token is out; and the token id of each.
    """

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, device=scores.device)[:, None]

    scores = scores / column([s.temperature for s in settings])
    vocabulary = scores.shape[-1]
    if _whole(settings[0]):
        return scores, torch.arange(vocabulary, device=scores.device).expand_as(scores)
    top_p = column([s.top_p for s in settings])
    if _narrow(settings[0]):
        top_k = [min(s.top_k, vocabulary) for s in settings]
        values, columns = scores.topk(max(top_k), dim=-1)
        ranks = torch.arange(values.shape[-1], device=scores.device)
        values = values.masked_fill(ranks >= column(top_k), -torch.inf)
        total = values.logsumexp(-1, keepdim=True)
    else:
        total = scores.logsumexp(-1, keepdim=True)
        values, columns = scores.topk(min(NUCLEUS, vocabulary), dim=-1)
        if ((values - total).exp().sum(-1, keepdim=True) < top_p).any():
            values, columns = scores.sort(dim=-1, descending=True)  # slow, and seldom needed
    probabilities = (values - total).exp()
    before = probabilities.cumsum(-1) - probabilities  # what the more probable tokens reach
    out = (before >= top_p) & (top_p < 1.0)
    out[:, 0] = False
    return values.masked_fill(out, -torch.inf), columns


def _noise(rows: Sequence[Row], scores: Tensor) -> Tensor:
    """Gumbel noise (rows, vocabulary), each row from its own generator.

    The token with the largest logit + noise is distributed as softmax would have it (the
    Gumbel-max trick, https://arxiv.org/abs/1411.0030, section 2). Unlike a draw by
    cumulated probabilities it stays the same token when a logit moves in its last
    digits, as it does when other rows share the step: same seed, same text.
    """
    noise = torch.empty(len(rows), scores.shape[-1], device=scores.device)
    for i, row in enumerate(rows):
        noise[i].uniform_(generator=row.generator)
    return noise.log_().neg_().log_().neg_()


def _penalised(scores: Tensor, rows: Sequence[Row]) -> Tensor:
    """Repetition penalty (CTRL, https://arxiv.org/abs/1909.05858) for the rows that ask for it."""
    which = [i for i, row in enumerate(rows) if row.settings.repetition_penalty != 1.0]
    if not which:
        return scores
    longest = max(len(rows[i].ids) for i in which)
    # Short rows are filled with a token that they hold already: it changes nothing.
    seen = torch.tensor(
        [rows[i].ids + rows[i].ids[:1] * (longest - len(rows[i].ids)) for i in which],
        device=scores.device,
    )
    penalty = torch.tensor(
        [rows[i].settings.repetition_penalty for i in which], device=scores.device
    )[:, None]
    part = scores[which]
    found = part.gather(1, seen)
    scores = scores.clone()
    scores[which] = part.scatter(1, seen, torch.where(found < 0, found * penalty, found / penalty))
    return scores


def _without_repeats(scores: Tensor, rows: Sequence[Row]) -> Tensor:
    """Rule out tokens that would complete a run of n tokens for the second time."""
    if not any(row.settings.no_repeat_ngram_size for row in rows):
        return scores
    scores = scores.clone()
    for i, row in enumerate(rows):
        n, ids = row.settings.no_repeat_ngram_size, row.ids
        if n and len(ids) >= n:
            tail = ids[len(ids) - n + 1 :]
            starts = range(len(ids) - n + 1)
            out = [ids[j + n - 1] for j in starts if ids[j : j + n - 1] == tail]
            scores[i, out] = -torch.inf
    return scores
