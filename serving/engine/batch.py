"""The running batch: rows of different lengths over one key-value cache. (Lesson 09.)

Rows are padded on the left, so that the newest token of every row lies in the last
column and one forward pass adds one column for all:

    row 0   .  .  .  a  b  c        . is padding, hidden by the attention mask
    row 1   d  e  f  g  h  i
    row 2   .  .  .  .  .  j
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from serving.engine.forward import Forward, Step
from serving.engine.kv_cache import BufferedLayer, empty_cache

if TYPE_CHECKING:
    from transformers import DynamicCache

    from serving.engine.jobs import Sequence


class Batch:
    """Rows that go through the model together.

    A new batch holds the whole prompts of its rows and feeds them chunk by chunk; when
    it is prefilled it `join`s the running one, which then decodes column by column.

    Attributes:
        rows: the sequences, one a row.
        width: columns in the cache, padding included.
        padding: how many of them hold no text, for each row. In a new batch, of the prompts' width.
        cache: transformers' own, its keys and values (rows, heads, width, head size).
    """

    def __init__(self, forward: Forward, rows: list[Sequence], context: int) -> None:
        self.forward, self.rows, self.context = forward, rows, context
        self.width, self._prompts_width = 0, max((len(row.ids) for row in rows), default=0)
        self.padding = [self._prompts_width - len(row.ids) for row in rows]
        self.cache = empty_cache()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def prefilled(self) -> bool:
        """Whether the whole prompts have been fed."""
        return self.width >= self._prompts_width

    def restore(self, prefixes: list[Tensor]) -> None:
        """Begin with what is known of the prompts, before anything is fed.

        Args:
            prefixes: keys and values of each row's first tokens, (layers, 2, heads, tokens,
                size); the same number of tokens must be left to feed in the longest prompts.
        """
        self.width = max(prefix.shape[3] for prefix in prefixes)
        padded = [pad(prefix, (0, 0, self.width - prefix.shape[3], 0)) for prefix in prefixes]
        for i, layer in enumerate(torch.stack(padded, dim=2)):  # (2, rows, heads, width, size)
            self.cache.update(layer[0], layer[1], i)

    def columns(self, row: int, start: int, end: int) -> Tensor:
        """Keys and values of a row's tokens from `start` to `end`, as `restore` takes them."""
        first = self.padding[row]
        at = slice(first + start, first + end)
        pairs = [(layer.keys[row, :, at], layer.values[row, :, at]) for layer in self._layers()]
        return torch.stack([torch.stack(pair) for pair in pairs])

    def prefill(self, columns: int, all_logits: bool = False) -> Tensor:
        """Feed the next `columns` columns of the prompts; logits as `Forward` has them."""
        texts = [[0] * empty + row.ids for row, empty in zip(self.rows, self.padding, strict=True)]
        return self._feed([text[self.width :][:columns] for text in texts], all_logits)

    def decode(self) -> Tensor:
        """Feed the newest token of every row; logits of shape (rows, vocabulary)."""
        return self._feed([row.ids[-1:] for row in self.rows])

    def _feed(self, tokens: list[list[int]], all_logits: bool = False) -> Tensor:
        """Add columns: the tokens of each row."""
        new, device = range(self.width, self.width + len(tokens[0])), self.forward.device
        last = self.context - 1
        positions = [[min(max(n - empty, 0), last) for n in new] for empty in self.padding]
        step = Step(
            torch.tensor(tokens, device=device),
            torch.tensor(positions, device=device),
            self.padding,
            new.stop,
            self.cache,
            all_logits,
        )
        try:
            logits = self.forward(step)
        except Exception:
            self._crop()
            raise
        self.width = new.stop
        return logits

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
            self.rows, self.cache = other.rows, other.cache
            self.width, self.padding = other.width, other.padding
            return
        width = max(self.width, other.width)
        mine, theirs = width - self.width, width - other.width
        for a, b in zip(self._layers(), other._layers(), strict=True):
            for buffer, rows in zip(a.buffers, (b.keys, b.values), strict=True):
                buffer.widen(mine)
                buffer.add(rows)
            a.refresh()
        self.padding = [n + mine for n in self.padding] + [n + theirs for n in other.padding]
        self.width, self.rows = width, self.rows + other.rows

    def keep(self, indices: list[int]) -> None:
        """Drop all other rows, and the columns that only they needed.

        The last rows move into the places that became free; the others stay.
        """
        if len(indices) == len(self.rows):
            return
        if not indices:
            self.rows, self.padding, self.width, self.cache = [], [], 0, empty_cache()
            return
        count, kept = len(indices), set(indices)
        holes = [i for i in range(count) if i not in kept]
        movers = [i for i in indices if i >= count]
        order = list(range(count))
        for hole, mover in zip(holes, movers, strict=True):
            order[hole] = mover
        self.rows = [self.rows[i] for i in order]
        padding = [self.padding[i] for i in order]
        spare = min(self.width, *padding)
        self.padding, self.width = [n - spare for n in padding], self.width - spare
        self._prompts_width -= spare
        for layer in self._layers():
            for buffer in layer.buffers:
                buffer.keep(holes, movers, count, self.width)
            layer.refresh()


def check_cache(cache: DynamicCache) -> None:
    """Refuse models whose memory of the text is not keys and values of every token.

    Raises:
        TypeError: a state-space or hybrid model; its rows cannot be joined by padding.
    """
    kinds = {type(layer).__name__ for layer in cache.layers}
    if kinds != {BufferedLayer.__name__}:
        raise TypeError(f"cache of kind {', '.join(sorted(kinds))}: serving needs plain attention")
