"""What the generation parameters do to the logits, each in its two forms side by side.

- For rows that share their settings: transformers' own logits processors, which
  `generate` calls at every step. (Lesson 03.)
- For rows that each have their own: operations on all rows of a step at once, as the
  server's engine needs them. On 32 rows they cost a tenth of calling the processors row
  by row. (Lesson 09.)

Both give the same probabilities. A parameter that changes logits is one entry of `FORMS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from helpers.settings import GenerationSettings

NUCLEUS = 512  # columns that are tried first for top-p over a whole vocabulary


class Row(Protocol):
    """What sampling needs to know of a row; the engine passes its sequences."""

    settings: GenerationSettings
    ids: list[int]  # the prompt's tokens and the new ones, without padding
    generator: torch.Generator | None


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    """Numbers, one a row, as a column beside a tensor."""
    return torch.tensor(values, device=like.device)[:, None]


# --- parameters that change logits before one is chosen, in transformers' order


def _biased(scores: Tensor, rows: Sequence[Row]) -> Tensor:
    """`logit_bias`: some tokens get a number added."""
    for i, row in enumerate(rows):
        ids = torch.tensor(list(row.settings.logit_bias), device=scores.device)
        scores[i, ids] += torch.tensor(list(row.settings.logit_bias.values())).to(scores)
    return scores


def _penalised(scores: Tensor, rows: Sequence[Row]) -> Tensor:
    """`repetition_penalty` (CTRL, https://arxiv.org/abs/1909.05858)."""
    longest = max(len(row.ids) for row in rows)
    # Short rows are filled with a token that they hold already: it changes nothing.
    filled = [row.ids + row.ids[:1] * (longest - len(row.ids)) for row in rows]
    seen = torch.tensor(filled, device=scores.device)
    penalty = _column([row.settings.repetition_penalty for row in rows], scores)
    found = scores.gather(1, seen)
    return scores.scatter(1, seen, torch.where(found < 0, found * penalty, found / penalty))


def _without_repeats(scores: Tensor, rows: Sequence[Row]) -> Tensor:
    """`no_repeat_ngram_size`: no token may complete a run of n tokens for the second time."""
    for i, row in enumerate(rows):
        n, ids = row.settings.no_repeat_ngram_size, row.ids
        starts = range(len(ids) - n + 1)
        tail = ids[len(ids) - n + 1 :]
        scores[i, [ids[j + n - 1] for j in starts if ids[j : j + n - 1] == tail]] = -torch.inf
    return scores


class Forms(NamedTuple):
    """The two forms of a parameter that changes logits.

    Attributes:
        on: whether settings ask for it.
        processor: transformers' form.
        rows: scores (rows, vocabulary), which it may change, and their rows to new scores.
    """

    on: Callable[[GenerationSettings], bool]
    processor: Callable[[GenerationSettings], LogitsProcessor]
    rows: Callable[[Tensor, Sequence[Row]], Tensor]


FORMS = {
    "logit_bias": Forms(
        lambda s: bool(s.logit_bias),
        lambda s: SequenceBiasLogitsProcessor([[[t], bias] for t, bias in s.logit_bias.items()]),
        _biased,
    ),
    "repetition_penalty": Forms(
        lambda s: s.repetition_penalty != 1.0,
        lambda s: RepetitionPenaltyLogitsProcessor(s.repetition_penalty),
        _penalised,
    ),
    "no_repeat_ngram_size": Forms(
        lambda s: s.no_repeat_ngram_size > 0,
        lambda s: NoRepeatNGramLogitsProcessor(s.no_repeat_ngram_size),
        _without_repeats,
    ),
}


def shaped(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """Logits (rows, vocabulary), left as they are, to those that `FORMS` make of them."""
    scores = logits.float()
    for form in FORMS.values():
        which = [i for i, row in enumerate(rows) if form.on(row.settings)]
        if which:
            changed = form.rows(scores[which], [rows[i] for i in which])
            scores = scores.index_copy(0, torch.tensor(which, device=scores.device), changed)
    return scores


def shapers(settings: GenerationSettings) -> LogitsProcessorList:
    """The same as transformers' processors, those that change nothing left out."""
    return LogitsProcessorList(s.processor(settings) for s in FORMS.values() if s.on(settings))


# --- temperature, top-k, top-p: which tokens can be drawn, and how probable each is


def processors(settings: GenerationSettings) -> LogitsProcessorList:
    """All that settings do to the logits, as transformers' own processors, in its order.

    Each takes (ids of shape (rows, tokens), logits of shape (rows, vocabulary)) and
    returns changed logits; a processor that changes nothing is left out.
    """
    found = shapers(settings)
    if settings.greedy:
        found.append(TopKLogitsWarper(1))
        return found
    if settings.temperature != 1.0:
        found.append(TemperatureLogitsWarper(settings.temperature))
    if settings.top_k:
        found.append(TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1.0:
        found.append(TopPLogitsWarper(settings.top_p))
    return found


class _Unpadded(LogitsProcessor):
    """Processors that see each row without its padding, which they would take for text."""

    def __init__(self, inner: LogitsProcessorList, padding: Sequence[int]) -> None:
        self.inner, self.padding = inner, padding

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        texts = len(input_ids) // len(self.padding)  # for each prompt, one row beside the other
        rows = [
            self.inner(input_ids[i : i + 1, self.padding[i // texts] :], scores[i : i + 1])
            for i in range(len(input_ids))
        ]
        return torch.cat(rows)


def generate_arguments(settings: GenerationSettings, padding: Sequence[int] = ()) -> dict[str, Any]:
    """The same settings as keyword arguments of transformers' `generate`.

    Args:
        settings: shared by all rows.
        padding: how many columns on the left of each prompt are no text.
    """
    arguments: dict[str, Any] = {
        "do_sample": not settings.greedy,
        "num_return_sequences": settings.num_return_sequences,
    }
    if not settings.greedy:  # generate warns about a temperature that it will not use
        for name in ("temperature", "top_k", "top_p"):
            arguments[name] = getattr(settings, name)
    found = shapers(settings)
    if found and any(padding):
        found = LogitsProcessorList([_Unpadded(found, padding)])
    if found:
        arguments["logits_processor"] = found
    return arguments


def probabilities(logits: Tensor) -> Tensor:
    """Softmax: logits of shape (…, vocabulary) to probabilities that sum to 1."""
    return torch.softmax(logits, dim=-1)


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Random numbers from this seed inside; outside they go on as if nothing had happened."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def next_tokens(logits: Tensor, rows: Sequence[Row]) -> list[int]:
    """One token id for each row; -1 where the logits hold no number to choose by.

    Args:
        logits: (rows, vocabulary), left unchanged.
        rows: the settings, token ids so far and random generator of each row.
    """
    scores = shaped(logits, rows)
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
    scores = scores / _column([s.temperature for s in settings], scores)
    vocabulary = scores.shape[-1]
    if _whole(settings[0]):
        return scores, torch.arange(vocabulary, device=scores.device).expand_as(scores)
    top_p = _column([s.top_p for s in settings], scores)
    if _narrow(settings[0]):
        top_k = [min(s.top_k, vocabulary) for s in settings]
        values, columns = scores.topk(max(top_k), dim=-1)
        ranks = torch.arange(values.shape[-1], device=scores.device)
        values = values.masked_fill(ranks >= _column(top_k, scores), -torch.inf)
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
