"""The running batch: rows of different lengths over one key-value cache. (Lesson 09.)

Rows are padded on the left, so that the newest token of every row lies in the last
column and one forward pass adds one column for all:

    row 0   .  .  .  a  b  c        . is padding, hidden by the attention mask
    row 1   d  e  f  g  h  i
    row 2   .  .  .  .  .  j
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from serving.engine.kv_cache import BufferedLayer, empty_cache

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel

    from serving.engine.jobs import Sequence


class Batch:
    """Rows that go through the model together.

    A new batch holds the whole prompts of its rows and feeds them chunk by chunk; when
    it is prefilled it `join`s the running one, which then decodes column by column.

    Attributes:
        rows: the sequences, one a row.
        mask: (rows, width) of 0 and 1; 0 is padding.
        cache: transformers' own, its keys and values (rows, heads, width, head size).
    """

    def __init__(self, model: PreTrainedModel, rows: list[Sequence], context: int) -> None:
        self.model, self.rows, self.context = model, rows, context
        self._extra = inspect.signature(model.forward).parameters
        width = max((len(row.ids) for row in rows), default=0)
        padded = [[0] * (width - len(row.ids)) + row.ids for row in rows]
        mask = [[0] * (width - len(row.ids)) + [1] * len(row.ids) for row in rows]
        shape, device = (len(rows), width), model.device
        self._prompts = torch.tensor(padded, dtype=torch.long, device=device).reshape(shape)
        self._prompt_mask = torch.tensor(mask, dtype=torch.long, device=device).reshape(shape)
        self.mask = self._prompt_mask[:, :0]
        self.cache = empty_cache()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def width(self) -> int:
        """Columns in the cache, padding included."""
        return int(self.mask.shape[1])

    @property
    def prefilled(self) -> bool:
        """Whether the whole prompts have been fed."""
        return self.width >= self._prompt_mask.shape[1]

    def restore(self, prefixes: list[Tensor]) -> None:
        """Begin with what is known of the prompts, before anything is fed.

        Args:
            prefixes: keys and values of each row's first tokens, (layers, 2, heads, tokens,
                size); the same number of tokens must be left to feed in the longest prompts.
        """
        width = max(prefix.shape[3] for prefix in prefixes)
        padded = [pad(prefix, (0, 0, width - prefix.shape[3], 0)) for prefix in prefixes]
        for i, layer in enumerate(torch.stack(padded, dim=2)):  # (2, rows, heads, width, size)
            self.cache.update(layer[0], layer[1], i)
        self.mask = self._prompt_mask[:, :width]

    def columns(self, row: int, start: int, end: int) -> Tensor:
        """Keys and values of a row's tokens from `start` to `end`, as `restore` takes them."""
        first = self.width - int(self.mask[row].sum())
        at = slice(first + start, first + end)
        pairs = [(layer.keys[row, :, at], layer.values[row, :, at]) for layer in self._layers()]
        return torch.stack([torch.stack(pair) for pair in pairs])

    def prefill(self, columns: int, all_logits: bool = False) -> Tensor:
        """Feed the next `columns` columns of the prompts; logits as `_forward` gives them."""
        start, end = self.width, self.width + columns
        return self._forward(
            self._prompts[:, start:end], self._prompt_mask[:, start:end], all_logits
        )

    def decode(self) -> Tensor:
        """Feed the newest token of every row; logits of shape (rows, vocabulary)."""
        newest = torch.tensor([row.ids[-1:] for row in self.rows], device=self.mask.device)
        return self._forward(newest, torch.ones_like(newest))

    def _forward(self, tokens: Tensor, mask: Tensor, all_logits: bool = False) -> Tensor:
        """One pass through the model.

        Returns:
            logits of the last column (rows, vocabulary), or of every column given
            (rows, columns, vocabulary).
        """
        full = torch.cat([self.mask, mask], dim=1)
        positions = (full.cumsum(1) - 1)[:, self.width :].clamp(0, self.context - 1)
        arguments: dict[str, Any] = {"position_ids": positions}
        if not all_logits:
            arguments["logits_to_keep"] = 1  # the vocabulary is wide: compute one column
        try:
            output = self.model(
                input_ids=tokens,
                attention_mask=full,
                past_key_values=self.cache,
                use_cache=True,
                **{name: value for name, value in arguments.items() if name in self._extra},
            )
        except Exception:
            self._crop()
            raise
        self.mask = full
        return output.logits.float() if all_logits else output.logits[:, -1].float()

    def _crop(self) -> None:
        """After a failed pass, take back the columns that some layers have added."""
        for layer in self._layers():
            for buffer in layer.buffers:
                buffer.crop(self.width)
            layer.refresh()

    def _layers(self) -> list[BufferedLayer]:
        return [layer for layer in self.cache.layers if layer.is_initialized]

    def join(self, other: Batch) -> None:
        """Take over the rows of another batch, padding the narrower of the two on the left."""
        if not other.rows:
            return
        if not self.rows:
            self.rows, self.mask, self.cache = other.rows, other.mask, other.cache
            return
        width = max(self.width, other.width)
        mine, theirs = width - self.width, width - other.width
        for a, b in zip(self._layers(), other._layers(), strict=True):
            for buffer, rows in zip(a.buffers, (b.keys, b.values), strict=True):
                buffer.widen(mine)
                buffer.add(rows)
            a.refresh()
        self.mask = torch.cat([pad(self.mask, (mine, 0)), pad(other.mask, (theirs, 0))])
        self.rows = self.rows + other.rows

    def keep(self, indices: list[int]) -> None:
        """Drop all other rows, and the columns that only they needed.

        The last rows move into the places that became free; the others stay.
        """
        if len(indices) == len(self.rows):
            return
        if not indices:
            self.rows, self.mask, self.cache = [], self.mask[:0, :0], empty_cache()
            return
        count, kept = len(indices), set(indices)
        holes = [i for i in range(count) if i not in kept]
        movers = [i for i in indices if i >= count]
        order = list(range(count))
        for hole, mover in zip(holes, movers, strict=True):
            order[hole] = mover
        self.rows = [self.rows[i] for i in order]
        mask = self.mask[order]
        width = int(mask.sum(1).max())
        self.mask = mask[:, -width:]
        for layer in self._layers():
            for buffer in layer.buffers:
                buffer.keep(holes, movers, count, width)
            layer.refresh()


def check_cache(cache: DynamicCache) -> None:
    """Refuse models whose memory of the text is not keys and values of every token.

    Raises:
        TypeError: a state-space or hybrid model; its rows cannot be joined by padding.
    """
    kinds = {type(layer).__name__ for layer in cache.layers}
    if kinds != {BufferedLayer.__name__}:
        raise TypeError(f"cache of kind {', '.join(sorted(kinds))}: serving needs plain attention")
