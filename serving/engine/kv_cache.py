"""A key-value cache with capacity to spare, so that a step writes one column. (Lesson 09.)

transformers' `DynamicLayer` copies all keys and values at every step to add a column;
with 32 rows that was a third of a step. Here they lie in a larger tensor: a step writes
a column into it, a row that joins is written beside the others, a row that leaves is
overwritten by the last one, and everything is copied only when the capacity is used up.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

SPARE_COLUMNS = 64


class KVBuffer:
    """A tensor (rows, heads, columns, size) of which a part is used.

    Unused places hold numbers, never NaN: the attention mask gives them a weight of 0,
    and 0 × NaN would spoil the row.
    """

    def __init__(self, first: Tensor) -> None:
        self._data = first.clone()
        self._rows, self._start, self._end = first.shape[0], 0, first.shape[2]

    @property
    def used(self) -> Tensor:
        """A view of the used part."""
        return self._data[: self._rows, :, self._start : self._end]

    def append(self, columns: Tensor) -> None:
        """Add columns on the right."""
        new_end = self._end + columns.shape[2]
        if new_end > self._data.shape[2]:
            self._move(self._data.shape[0], 0, columns.shape[2] + SPARE_COLUMNS)
            new_end = self._end + columns.shape[2]
        self._data[: self._rows, :, self._end : new_end] = columns
        self._end = new_end

    def widen(self, columns: int) -> None:
        """Add padding on the left."""
        if columns > self._start:
            self._move(self._data.shape[0], columns, SPARE_COLUMNS)
        self._start -= columns
        self._data[: self._rows, :, self._start : self._start + columns] = 0

    def add(self, rows: Tensor) -> None:
        """Add rows that are not wider, padded on the left."""
        total = self._rows + rows.shape[0]
        if total > self._data.shape[0]:
            self._move(max(total, 2 * self._data.shape[0]), 0, SPARE_COLUMNS)
        middle = self._end - rows.shape[2]
        self._data[self._rows : total, :, self._start : middle] = 0
        self._data[self._rows : total, :, middle : self._end] = rows
        self._rows = total

    def keep(self, holes: list[int], movers: list[int], rows: int, width: int) -> None:
        """Keep the first `rows` rows, `movers` in the place of `holes`, and the last columns."""
        self._start = self._end - width
        if holes:
            self._data[holes, :, self._start : self._end] = self._data[
                movers, :, self._start : self._end
            ]
        self._rows = rows

    def crop(self, width: int) -> None:
        """Take back columns on the right."""
        self._end = self._start + width

    def _move(self, rows: int, left: int, right: int) -> None:
        """Copy the used part to a larger tensor, with free columns on both sides."""
        used = self.used
        _, heads, width, size = used.shape
        self._data = used.new_zeros(rows, heads, left + width + right, size)
        self._start, self._end = left, left + width
        self.used.copy_(used)


class BufferedLayer(DynamicLayer):
    """One layer's keys and values, each in a `KVBuffer`; a drop-in for `DynamicLayer`."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Add the new columns; returns all keys and all values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.buffers = (KVBuffer(key_states), KVBuffer(value_states))
        else:
            # A failure between the two is taken back by `Batch`.
            self.buffers[0].append(key_states)
            self.buffers[1].append(value_states)
        self.refresh()
        return self.keys, self.values

    def refresh(self) -> None:
        """Point `keys` and `values` at what is used now."""
        self.keys, self.values = self.buffers[0].used, self.buffers[1].used


def empty_cache() -> DynamicCache:
    """An empty cache whose layers are `BufferedLayer`s.

    It is made without the model's config, so every layer keeps all columns, also where
    the model looks at a sliding window only: the mask hides the others, and rows can be
    joined.
    """
    cache = DynamicCache()
    cache.layer_class_to_replicate = BufferedLayer
    return cache
