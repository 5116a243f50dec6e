"""The rows that are being written: prefill, decode, and the next token of each. (Lesson 09.)"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING

import torch

from helpers.decoding import Ending
from helpers.sampling import next_tokens
from serving.engine.batch import Batch, check_cache
from serving.engine.forward import forward_of
from serving.engine.jobs import Sequence
from serving.engine.logprobs import note_prompt, token_logprob
from serving.engine.prefix_cache import PrefixCache
from serving.engine.stats import Stats

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)


class ModelRunner:
    """Two batches on one model: one decodes, the other's prompts are being prefilled.

    Attributes:
        decoding: the running batch; every row gets a token at each step.
        prefilling: the rows that join it when their prompts have been read.
        stats: what was done so far.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        context: int,
        prefill_chunk: int,
        prefixes: PrefixCache,
    ) -> None:
        """No rows yet.

        Args:
            model: any decoder-only model of transformers with plain attention.
            tokenizer: its tokenizer.
            context: the most tokens that a row can hold.
            prefill_chunk: most columns of the prompts that are read in one pass.
            prefixes: what is kept of the prompts that were read.
        """
        self.model, self.tokenizer, self.context = model, tokenizer, context
        self.prefill_chunk, self.prefixes, self.stats = prefill_chunk, prefixes, Stats()
        end = model.generation_config.eos_token_id if model.generation_config else None
        self.ends = set(end) if isinstance(end, list) else {end}
        self._forward = forward_of(model)
        self.decoding, self.prefilling = self._batch([]), self._batch([])

    def _batch(self, rows: list[Sequence]) -> Batch:
        return Batch(self._forward, rows, self.context)

    @property
    def rows(self) -> list[Sequence]:
        """Every row that has a slot."""
        return [*self.decoding.rows, *self.prefilling.rows]

    @property
    def cache_places(self) -> int:
        """Places in the key-value cache that rows take up, padding included."""
        return sum(len(batch) * batch.width for batch in (self.decoding, self.prefilling))

    def probe(self, row: Sequence) -> None:
        """Refuse a model that cannot be served, by reading one token of a row.

        Raises:
            TypeError: as `check_cache`.
        """
        batch = self._batch([row])
        batch.prefill(1)
        check_cache(batch.cache)

    def unread(self, row: Sequence) -> int:
        """How many tokens of a waiting row the model has yet to read."""
        known = 0 if row.job.prompt_logprobs else self.prefixes.known(row.ids)
        return len(row.ids) - known

    def admit(self, rows: list[Sequence]) -> None:
        """Give rows their slots; their prompts are read by `prefill`."""
        unread = max((self.unread(row) for row in rows), default=0)
        for row in rows:
            if row.generator is None:  # not one that comes back after running out of memory
                row.generator = torch.Generator(self.model.device).manual_seed(row.seed)
                ends = () if row.job.ignore_end else self.ends
                row.ending = Ending(self.tokenizer, ends, row.max_new_tokens, row.settings.stop)
                row.started = time.perf_counter()
                self.stats.prompt_tokens += row.prompt_tokens
        self.prefilling = self._batch(rows)
        # All rows are fed the same columns. A row of which more is known than of the others
        # is read from where they begin: in place of padding, which would cost as much.
        for row in rows:
            row.cached_tokens = max(0, len(row.ids) - unread)
            self.prefixes.stats.prompt_tokens += len(row.ids)
            self.prefixes.stats.cached_tokens += row.cached_tokens
        if any(row.cached_tokens for row in rows):
            kept = [self.prefixes.read(row.ids, row.cached_tokens) for row in rows]
            self.prefilling.restore(kept)

    def prefill(self) -> int:
        """Read one chunk of the prompts; when all are read the rows start to decode.

        Returns:
            tokens that went through the model, padding included.
        """
        batch = self.prefilling
        wants_prompt = batch.rows[0].job.prompt_logprobs
        start = batch.width
        logits = batch.prefill(self.prefill_chunk, all_logits=wants_prompt)
        read = len(batch) * (batch.width - start)
        if wants_prompt:
            note_prompt(batch.rows[0], logits[0], start)
            logits = logits[:, -1]
        if batch.prefilled:
            self._choose(batch.rows, logits)
            for i, row in enumerate(batch.rows):
                self.prefixes.store(row.ids[: row.prompt_tokens], partial(batch.columns, i))
            self.decoding.join(batch)
            self.prefilling = self._batch([])
        return read

    def decode(self) -> None:
        """One step: every row of the running batch gets its next token."""
        self._choose(self.decoding.rows, self.decoding.decode())

    def _choose(self, rows: list[Sequence], logits: torch.Tensor) -> None:
        """Give every row its next token."""
        for row, scores, token in zip(rows, logits, _next(logits, rows), strict=True):
            if row.finish_reason:
                continue  # a static batch carries ended rows along
            try:
                wanted = row.job.logprobs
                noted = None if wanted is None else token_logprob(scores, token, wanted)
                row.accept(token, noted)
                self.stats.new_tokens += 1
            except Exception as error:
                log.exception("a text failed; the others go on")
                row.end("error", f"writing this text failed: {type(error).__name__}")

    def release(self, whole: bool = False) -> list[Sequence]:
        """Free the slots of the rows that have ended, and return these rows.

        Args:
            whole: the running batch leaves as one, when all of its rows have ended.
        """
        gone = _drop_ended(self.prefilling)
        if not whole or all(row.finish_reason for row in self.decoding.rows):
            gone += _drop_ended(self.decoding)
        return gone

    def clear(self) -> list[Sequence]:
        """Free every slot, the memory of its row and the kept prompts; returns the rows."""
        rows = self.rows
        self.prefixes.clear()
        self.decoding, self.prefilling = self._batch([]), self._batch([])
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        return rows


def _next(logits: torch.Tensor, rows: list[Sequence]) -> list[int]:
    """`next_tokens`, of those that each row's guide allows."""
    guided = {i: row.guide for i, row in enumerate(rows) if row.guide and not row.finish_reason}
    if not guided:
        return next_tokens(logits, rows)
    scores = logits.clone()
    for i, guide in guided.items():
        mask = torch.frombuffer(bytearray(guide.mask()), dtype=torch.uint8).to(logits.device)
        scores[i].masked_fill_(mask[: logits.shape[1]] == 0, -torch.inf)
    tokens = next_tokens(scores, rows)
    for i in guided:
        if tokens[i] < 0:  # other parameters rule out all that is allowed: the form comes first
            best = scores[i].argmax()
            tokens[i] = int(best) if scores[i, best].isfinite() else -1
    return tokens


def _drop_ended(batch: Batch) -> list[Sequence]:
    gone = [row for row in batch.rows if row.finish_reason]
    batch.keep([i for i, row in enumerate(batch.rows) if not row.finish_reason])
    return gone
