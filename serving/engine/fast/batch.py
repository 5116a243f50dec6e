"""Texts that CTranslate2 writes together: its arguments, and what its callback makes of each token.

The library takes a whole batch with one set of sampling parameters. Texts leave it when they end,
none can join. Two things are easily got wrong:

- The prompts are read as far as the shortest one reaches. The rest of a longer one is fed token by
  token, like new text that is given: the callback sees these tokens, and `max_length` counts them.
- Penalties look only at what was fed token by token. So where a text asks for one, all of its
  prompt but the first token is (`include_prompt_in_result`), which is slower for long prompts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from serving.engine.fast.restrictions import penalised
from serving.engine.jobs import Sequence, TokenLogprob
from serving.engine.logprobs import token_logprob
from serving.engine.stats import Stats

if TYPE_CHECKING:
    from ctranslate2 import GenerationStepResult

log = logging.getLogger(__name__)
RAGGED_TOKENS = 16  # a prompt this much longer than the shortest is read at once in another batch


def sampling(row: Sequence) -> dict[str, Any]:
    """The library's arguments of one text; only equal ones share a batch."""
    settings = row.settings
    greedy = settings.greedy
    return {
        "sampling_topk": 1 if greedy else settings.top_k,
        "sampling_topp": 1.0 if greedy else settings.top_p,
        "sampling_temperature": 1.0 if greedy else settings.temperature,
        "repetition_penalty": settings.repetition_penalty,
        "no_repeat_ngram_size": settings.no_repeat_ngram_size,
        "include_prompt_in_result": penalised(row),
        "return_logits_vocab": row.job.logprobs is not None,
    }


def alike(group: list[Sequence], row: Sequence) -> bool:
    """Whether a text can be written together with those of a group."""
    first = group[0]
    if sampling(first) != sampling(row) or first.settings.logit_bias != row.settings.logit_bias:
        return False
    lengths = [len(one.ids) for one in (*group, row)]
    return penalised(row) or max(lengths) - min(lengths) <= RAGGED_TOKENS


class Batch:
    """One call of the library.

    Attributes:
        rows: its texts, those that have ended as well.
        left: those that have not been answered.
    """

    def __init__(
        self,
        rows: list[Sequence],
        vocabulary: list[str],
        stats: Stats,
        deliver: Callable[[Sequence], None],
        closing: Callable[[], str],
    ) -> None:
        """Nothing is written yet.

        Args:
            rows: texts that are `alike`, each of which wants another token.
            vocabulary: the library's name of each token id.
            stats: counted in by one thread at a time (the caller of `step` sees to that).
            deliver: answers a text that has ended.
            closing: why everything has to end now; "" if it does not.
        """
        self.rows, self.left = rows, list(rows)
        self._vocabulary, self._stats = vocabulary, stats
        self._deliver, self._closing = deliver, closing
        read = 1 if penalised(rows[0]) else min(len(row.ids) for row in rows)
        self._given = [len(row.ids) - read for row in rows]  # tokens of the prompt still to come
        self._step, self._began = -1, 0.0

    def arguments(self) -> dict[str, Any]:
        """All that the library's `generate_batch` is called with."""
        names = self._vocabulary
        first = self.rows[0]
        new = [row.max_new_tokens - row.new_tokens for row in self.rows]
        return sampling(first) | {
            "start_tokens": [[names[i] for i in row.ids] for row in self.rows],
            "max_length": max(a + b for a, b in zip(self._given, new, strict=True)),
            "suppress_sequences": [[names[i]] for i in first.settings.logit_bias] or None,
            "end_token": [],  # each text's `Ending` knows its own
            "callback": self.step,
        }

    def step(self, result: GenerationStepResult) -> bool:
        """Take one token of one text; True takes the text out of the batch."""
        row = self.rows[result.batch_id]
        self._count(result.step)
        if why := self._closing():
            row.end("shutdown", why)
        if not row.finish_reason and result.step >= self._given[result.batch_id]:
            self._accept(row, result)
        if not row.finish_reason:
            return False
        self.left.remove(row)
        self._deliver(row)
        return True

    def _accept(self, row: Sequence, result: GenerationStepResult) -> None:
        try:
            row.accept(result.token_id, _noted(row, result))
            self._stats.new_tokens += 1
        except Exception as error:
            log.exception("a text failed; the others go on")
            row.end("error", f"writing this text failed: {type(error).__name__}")

    def _count(self, step: int) -> None:
        """Count a step at the first of its tokens; the first step has read the prompts."""
        if step == self._step:
            return
        now = time.perf_counter()
        if step:
            self._stats.step(len(self.left), now - self._began, now - self._began)
        self._step, self._began = step, now

    @property
    def places(self) -> int:
        """Places of the key-value cache that it takes up."""
        return sum(len(row.ids) for row in list(self.left))


def _noted(row: Sequence, result: GenerationStepResult) -> TokenLogprob | None:
    """How probable the model found the token, where the job asks for that."""
    if row.job.logprobs is None:
        return None
    import numpy as np
    import torch

    logits = torch.from_numpy(np.array(result.logits)).reshape(-1)
    return token_logprob(logits, result.token_id, row.job.logprobs)
