"""Keys and values of prompts that were read, for prompts that begin alike. (Lesson 08.)

A system prompt or a row of examples stands before many prompts. What the model computes for
its tokens depends on nothing that comes after them, so it is kept, and only the rest of the
next prompt is read. Prompts are cut into blocks of 16 tokens. A block is found by its own
tokens and by the block before it, so what prompts share is stored once, and the same words
at another place are another block.

Keys are the token ids themselves, no hashes of them: two texts can never be mixed up. When
the room is used up, the block that was used longest ago goes. The beginning of a chain always
counts as used after what follows it, so a block never outlives the one before it.

Everybody who asks this engine shares the cache: see docs/settings.md for what a stranger can
learn from the time that an answer takes.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 16  # tokens

Key = tuple[int, tuple[int, ...]]  # the number of the block before (0: none), own token ids


@dataclass(frozen=True)
class Block:
    """Keys and values of 16 tokens.

    Attributes:
        number: never given twice, so that a block that is gone has no successors.
        data: (layers, 2, heads, 16, size): keys and values of every layer.
    """

    number: int
    data: Tensor


@dataclass
class PrefixStats:
    """What the cache has done since it was made, in tokens and blocks."""

    prompt_tokens: int = 0  # of all prompts that got a slot
    cached_tokens: int = 0  # of these, not computed again
    evicted_blocks: int = 0


class PrefixCache:
    """Blocks of prompts, the least recently used first; only the engine's thread uses it.

    Attributes:
        capacity_bytes: the most that all blocks take together; 0 keeps nothing.
        used_bytes: what they take now.
        stats: counters.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes, self.used_bytes = capacity_bytes, 0
        self.stats = PrefixStats()
        self._blocks: OrderedDict[Key, Block] = OrderedDict()
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        """How many blocks are kept."""
        return len(self._blocks)

    def known(self, ids: list[int]) -> int:
        """How many of a prompt's first tokens are kept; never all: the last gives the logits."""
        return len(self._chain(ids[:-1])) * BLOCK

    def read(self, ids: list[int], tokens: int) -> Tensor:
        """Keys and values of a prompt's first tokens: (layers, 2, heads, tokens, size).

        Args:
            ids: the prompt.
            tokens: at most what `known` said; for 0, some other prompt must be kept.
        """
        chain = self._chain(ids[:-1])[: -(-tokens // BLOCK)]
        self._touch(chain)
        blocks = [self._blocks[key].data for key in chain] or [
            next(iter(self._blocks.values())).data
        ]
        return torch.cat(blocks, dim=3)[:, :, :, :tokens]

    def store(self, ids: list[int], columns: Callable[[int, int], Tensor]) -> None:
        """Keep a prompt's whole blocks, as many as there is room for.

        Args:
            ids: the prompt.
            columns: gives keys and values of its tokens from one index to another, in the
                shape that `read` answers in; called only where something is new.
        """
        chain = self._chain(ids)
        self._touch(chain)
        start = len(chain) * BLOCK
        if not self.capacity_bytes or len(ids) - start < BLOCK:
            return
        new = columns(start, len(ids) - len(ids) % BLOCK)
        size = new[:, :, :, :BLOCK].numel() * new.element_size()
        room = self.capacity_bytes // size - len(chain)  # blocks; the chain itself must stay
        pieces = new.split(BLOCK, dim=3)[: max(room, 0)]
        while self.used_bytes + len(pieces) * size > self.capacity_bytes:
            _, gone = self._blocks.popitem(last=False)
            self.used_bytes -= gone.data.nbytes
            self.stats.evicted_blocks += 1
        for piece in pieces:
            key = self._key(chain, ids)
            # A copy: a view would keep the whole prompt's memory when this block is alone.
            self._blocks[key] = Block(next(self._numbers), piece.clone())
            self.used_bytes += size
            chain.append(key)
        self._touch(chain)

    def clear(self) -> None:
        """Give the memory back; the next prompts are kept again."""
        self._blocks.clear()
        self.used_bytes = 0

    def _key(self, chain: list[Key], ids: list[int]) -> Key:
        """Of the block that follows a chain in a prompt."""
        before = self._blocks[chain[-1]].number if chain else 0
        start = len(chain) * BLOCK
        return before, tuple(ids[start : start + BLOCK])

    def _chain(self, ids: list[int]) -> list[Key]:
        """The kept blocks that a prompt begins with, in order."""
        chain: list[Key] = []
        while (key := self._key(chain, ids)) in self._blocks:
            chain.append(key)
        return chain

    def _touch(self, chain: list[Key]) -> None:
        """Blocks have been used, the first of them last."""
        for key in reversed(chain):
            self._blocks.move_to_end(key)
