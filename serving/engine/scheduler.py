"""The engine: one thread owns the model; requests join and leave at every step. (Lesson 09.)

Each turn of the loop does three things:

1. admit: prefill a bounded number of prompt tokens of those who wait, and let whoever
   is through join the running batch;
2. step: one forward pass gives every running row its next token;
3. release: rows that have ended leave, and their slots are free for the next turn.

So a long text never holds up a short one, and a long prompt only for one chunk a turn.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from helpers.generator import is_out_of_memory
from helpers.models import context_length
from helpers.settings import GenerationSettings
from helpers.tokens import PieceDecoder
from serving.engine.batch import Batch, check_cache
from serving.engine.jobs import Job, NotReadyError, QueueFullError, Sequence
from serving.engine.logprobs import note_prompt, token_logprob
from serving.engine.sampling import next_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)
MAX_FAILURES = 3  # failed turns in a row after which the engine gives up
STATIC_WAIT_SECONDS = 0.02  # how long a static batch waits for company before it closes


@dataclass
class Stats:
    """What the engine has done since its start."""

    steps: int = 0
    row_steps: int = 0  # tokens chosen in those steps: row_steps / steps rows a step
    sequences: int = 0
    seconds_in_steps: float = 0.0


class Engine:
    """Decodes many sequences at once on one loaded model."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        slots: int = 32,
        queue_length: int = 64,
        prefill_chunk: int = 128,
        batching: str = "step",
    ) -> None:
        """An engine that is not running yet: `start` it.

        Args:
            model: any decoder-only model of transformers with plain attention.
            tokenizer: its tokenizer.
            slots: most rows in the running batch.
            queue_length: most sequences that wait; beyond it `submit` raises.
            prefill_chunk: most prompt tokens fed between two steps.
            batching: "step", or "static" for the older way: fill a batch, run it to the
                end of its longest text, answer, and only then take the next.
        """
        self.model, self.tokenizer, self.context = model, tokenizer, context_length(model)
        self.slots, self.queue_length, self.prefill_chunk = slots, queue_length, prefill_chunk
        self.static = batching == "static"
        self.stats, self.alive, self.error = Stats(), True, ""
        end = model.generation_config.eos_token_id if model.generation_config else None
        self._ends = set(end) if isinstance(end, list) else {end}
        self._batch, self._filling = self._new([]), self._new([])
        self._waiting: deque[Sequence] = deque()
        self._active = 0  # sequences submitted and not yet answered
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # What other threads call.

    def start(self) -> None:
        """Run, and prove with two tokens that this model can be served."""
        warm_up = Job(time_limit=600)
        greedy = GenerationSettings(prompt="Hello", temperature=0)
        warm_up.add(greedy, list(self.tokenizer("Hello")["input_ids"]), room=2)
        probe = self._new(warm_up.sequences)
        with torch.inference_mode():
            probe.fill(1)
        check_cache(probe.cache)
        self._thread.start()
        self.submit(warm_up)
        for _ in warm_up.updates():
            pass
        self.stats = Stats()

    def submit(self, job: Job) -> None:
        """Put a job into the queue, all of its sequences or none.

        Raises:
            QueueFullError: not enough places are free (with slots, those too).
            NotReadyError: the engine has died or is closing.
        """
        with self._wake:
            if not self.alive or self._closing:
                raise NotReadyError(self.error or "the engine is closed")
            if self._active + len(job.sequences) > self.slots + self.queue_length:
                raise QueueFullError
            self._active += len(job.sequences)
            self._waiting.extend(job.sequences)
            self._wake.notify()

    def close(self) -> None:
        """End everything at the next step and wait for the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def running(self) -> int:
        """Slots in use."""
        return len(self._batch.rows) + len(self._filling.rows)

    @property
    def waiting(self) -> int:
        """Sequences in the queue."""
        return len(self._waiting)

    # The engine's own thread.

    def _run(self) -> None:
        failures = 0
        with torch.inference_mode():
            while not self._closing and failures < MAX_FAILURES:
                no_memory = ""
                try:
                    self._turn()
                    failures = 0
                except Exception as error:
                    if is_out_of_memory(error):
                        no_memory = str(error).splitlines()[0][:200]
                    else:
                        failures += 1
                        log.exception("a step failed (%d in a row)", failures)
                        self._end_all("error", "the model failed")
                if no_memory:  # outside the except block: the failed tensors are free by now
                    self._shrink(no_memory)
        with self._wake:
            self.alive = False
            self.error = "the server is shutting down" if self._closing else "the model failed"
        self._end_all("shutdown", self.error, waiting=True)

    def _shrink(self, trouble: str) -> None:
        """Out of memory: go on with half the rows; the others wait and are prefilled again."""
        rows = [r for r in self._batch.rows + self._filling.rows if not r.finish_reason]
        if len(rows) <= 1:
            log.error("out of memory with a single text: %s", trouble)
            return self._end_all("error", "not even this text alone fits in memory")
        self.slots = len(rows) // 2
        log.warning("out of memory: %d slots from now on (%s)", self.slots, trouble)
        self._leave(self._batch)
        self._batch, self._filling = self._new([]), self._new([])
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        with self._wake:
            self._waiting.extendleft(reversed(rows))
        return None

    def _end_all(self, reason: str, message: str, waiting: bool = False) -> None:
        """End every running row, and those that wait too."""
        with self._wake:
            rows = [*self._batch.rows, *self._filling.rows]
            if waiting:
                rows += self._waiting
                self._waiting.clear()
        for row in rows:
            if not row.finish_reason:
                row.end(reason, message)
            self._deliver(row)
        self._batch, self._filling = self._new([]), self._new([])

    def _turn(self) -> None:
        with self._wake:
            while not (self._waiting or self.running or self._closing):
                self._wake.wait()
        self._expire()
        self._admit()
        if self._batch.rows:
            start = time.perf_counter()
            self._choose(self._batch.rows, self._batch.step())
            self.stats.steps += 1
            self.stats.row_steps += len(self._batch)
            self.stats.seconds_in_steps += time.perf_counter() - start
            self._release()

    def _new(self, rows: list[Sequence]) -> Batch:
        return Batch(self.model, rows, self.context)

    def _expire(self) -> None:
        """End what nobody waits for any more, or what has waited too long."""
        now = time.perf_counter()
        with self._wake:
            everything = [*self._waiting, *self._filling.rows, *self._batch.rows]
        for row in everything:
            if not row.finish_reason and (row.job.cancelled or now > row.job.deadline):
                row.end("cancelled" if row.job.cancelled else "timeout")
        with self._wake:
            gone = [row for row in self._waiting if row.finish_reason]
            if gone:
                self._waiting = deque(row for row in self._waiting if not row.finish_reason)
        for row in gone:
            self._deliver(row)
        self._release()

    def _admit(self) -> None:
        """Prefill those who wait: one chunk a turn, or in static mode whole batches."""
        if self.static:
            if self._batch.rows:
                return
            time.sleep(STATIC_WAIT_SECONDS)
            while self._filling.rows or (self._waiting and self.running < self.slots):
                self._fill()
        elif self._filling.rows or (self._waiting and self.running < self.slots):
            self._fill()

    def _fill(self) -> None:
        if not self._filling.rows:
            self._filling = self._new(self._take())
        filling = self._filling
        wants_prompt = filling.rows[0].job.prompt_logprobs
        columns = min(self.prefill_chunk, max(len(row.ids) for row in filling.rows) - filling.width)
        start = filling.width
        logits = filling.fill(columns, all_logits=wants_prompt)
        if wants_prompt:
            note_prompt(filling.rows[0], logits[0], start)
            logits = logits[:, -1]
        if filling.filled:
            self._choose(filling.rows, logits)
            self._batch.join(filling)
            self._filling = self._new([])
            self._release()

    def _take(self) -> list[Sequence]:
        """The next in the queue: one long prompt, or as many short ones as fit in a chunk."""
        group: list[Sequence] = []
        with self._wake:
            while self._waiting and len(self._batch) + len(group) < self.slots:
                longest = max(len(row.ids) for row in [*group, self._waiting[0]])
                alone = self._waiting[0].job.prompt_logprobs
                if group and (alone or longest * (len(group) + 1) > self.prefill_chunk):
                    break
                group.append(self._waiting.popleft())
                if alone:
                    break
        for row in group:
            if row.generator is None:  # not one that comes back after running out of memory
                row.generator = torch.Generator(self.model.device).manual_seed(row.seed)
                row.decoder = PieceDecoder(self.tokenizer, row.settings.stop)
        return group

    def _choose(self, rows: list[Sequence], logits: torch.Tensor) -> None:
        """Give every row its next token."""
        for row, scores, token in zip(rows, logits, next_tokens(logits, rows), strict=True):
            if row.finish_reason:
                continue  # a static batch carries ended rows along
            try:
                wanted = row.job.logprobs
                noted = None if wanted is None else token_logprob(scores, token, wanted)
                row.accept(token, self._ends, noted)
            except Exception as error:
                log.exception("a text failed; the others go on")
                row.end("error", f"writing this text failed: {type(error).__name__}")

    def _release(self) -> None:
        """Let the ended rows go; a static batch goes as a whole, when all have ended."""
        self._filling.keep(self._leave(self._filling))
        if not self.static or all(row.finish_reason for row in self._batch.rows):
            self._batch.keep(self._leave(self._batch))

    def _leave(self, batch: Batch) -> list[int]:
        for row in batch.rows:
            if row.finish_reason:
                self._deliver(row)
        return [i for i, row in enumerate(batch.rows) if not row.finish_reason]

    def _deliver(self, row: Sequence) -> None:
        row.finished = time.perf_counter()
        self.stats.sequences += 1
        with self._wake:
            self._active -= 1
        row.report()
