"""The engine: one thread owns the model; requests join and leave at every step. (Lesson 09.)

Each turn of the loop (`_turn`) does four things:

1. expire: what was cancelled or has waited too long ends;
2. prefill: a bounded number of prompt tokens of those who wait is read, and whoever is
   through joins the running batch;
3. decode: one forward pass gives every running row its next token;
4. release: rows that have ended are delivered, and their slots are free.

So a long text never holds up a short one, and a long prompt only for one chunk a turn.
Who waits and who is next is decided in `scheduler`, the rows and their tokens are in
`runner`, what travels back to the HTTP threads is in `jobs`.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

import torch

from helpers.models import context_length
from helpers.settings import GenerationSettings
from serving.engine.grammar import Grammars
from serving.engine.interface import Scheduled
from serving.engine.jobs import Job, Sequence
from serving.engine.loading import number_format
from serving.engine.prefix_cache import PrefixCache, PrefixStats
from serving.engine.runner import ModelRunner
from serving.engine.scheduler import Scheduler
from serving.engine.stats import Stats
from system.errors import is_out_of_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)
MAX_FAILURES = 3  # failed turns in a row after which the engine gives up
STATIC_WAIT_SECONDS = 0.02  # how long a static batch waits for company before it closes


class Engine(Scheduled):
    """Decodes many sequences at once on one loaded model."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        slots: int = 32,
        queue_length: int = 64,
        prefill_chunk: int = 128,
        batching: str = "continuous",
        prefix_cache_bytes: int = 0,
    ) -> None:
        """An engine that is not running yet: `start` it.

        Args:
            model: any decoder-only model of transformers with plain attention.
            tokenizer: its tokenizer.
            slots: most rows in the running batch.
            queue_length: most sequences that wait; beyond it `submit` raises.
            prefill_chunk: most prompt tokens fed between two steps.
            batching: "continuous" (rows join and leave at every step), or "static" for the
                older way: fill a batch, run it to the end of its longest text, answer,
                and only then take the next.
            prefix_cache_bytes: most memory for keys and values of prompts that were read,
                for those that begin alike; 0 keeps none.
        """
        self.model, self.tokenizer, self.context = model, tokenizer, context_length(model)
        self.static, self.dtype = batching == "static", number_format(model)
        self.alive, self.restrictions = True, dict[str, str]()
        self._scheduler = Scheduler(slots, queue_length, prefill_chunk)
        self.prefixes = PrefixCache(prefix_cache_bytes)
        self._runner = ModelRunner(model, tokenizer, self.context, prefill_chunk, self.prefixes)
        self.vocabulary = int(model.get_input_embeddings().num_embeddings)
        self.grammars = Grammars(tokenizer, self.vocabulary, self._runner.ends)
        self._closing, self._last_step = False, 0.0
        # Whose texts ended in the same step often ask again together. Where nobody else runs, they
        # are awaited, as long as a step takes, and their prompts are read in one pass.
        self._followers = (1, 0.0)  # how many, until when
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # What other threads call.

    def start(self) -> None:
        """Run, and prove with two tokens that this model can be served."""
        warm_up = Job(time_limit=600)
        greedy = GenerationSettings(temperature=0)
        warm_up.add(greedy, list(self.tokenizer("Hello")["input_ids"]), max_new_tokens=2)
        with torch.inference_mode():
            self._runner.probe(warm_up.sequences[0])
        self._thread.start()
        self.submit(warm_up)
        for _ in warm_up.updates():
            pass
        self._runner.stats, self.prefixes.stats = Stats(), PrefixStats()

    def submit(self, job: Job) -> None:
        """Put a job into the queue, all of its sequences or none.

        Raises:
            QueueFullError: not enough places are free (with slots, those too).
            NotReadyError: the engine has died or is closing.
            ParameterError: token ids that the model does not have.
        """
        for row in job.sequences:
            row.settings.check_tokens(self.vocabulary)
        self._scheduler.submit(job)

    def close(self) -> None:
        """End everything at the next step and wait for the thread."""
        self._closing = True
        self._scheduler.close("the server is shutting down")
        if self._thread.is_alive():
            self._thread.join()

    @property
    def stats(self) -> Stats:
        """What it has done since its start."""
        return self._runner.stats

    @property
    def running(self) -> int:
        """Slots in use."""
        return len(self._runner.rows)

    @property
    def cache_places(self) -> int:
        """Places in the key-value cache that rows take up, padding included."""
        return self._runner.cache_places

    # The engine's own thread.

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                self._loop()
        finally:  # whatever ended this thread
            self._scheduler.close("the model failed")
            self.alive = False
            self._end([*self._runner.clear(), *self._scheduler.empty()], "shutdown", self.error)

    def _loop(self) -> None:
        failures = 0
        while not self._closing and failures < MAX_FAILURES:
            no_memory = ""
            if not self._runner.rows:
                self._scheduler.wait_for_work(*self._followers)
            try:
                self._turn()
                failures = 0
            except Exception as error:
                if is_out_of_memory(error):
                    no_memory = str(error).splitlines()[0][:200]
                else:
                    failures += 1
                    self.stats.failed_steps += 1
                    log.exception("a step failed (%d in a row)", failures)
                    self._end(self._runner.clear(), "error", "the model failed")
            if no_memory:  # outside the except block: the failed tensors are free by now
                self._shrink(no_memory)

    def _turn(self) -> None:
        self._deliver(self._scheduler.expire(self._runner.rows))
        self._release()
        self._prefill()
        if self._runner.decoding.rows:
            start = time.perf_counter()
            self._runner.decode()
            now = time.perf_counter()
            gap = now - (self._last_step or start)
            rows = len(self._runner.decoding)
            self.stats.step(rows, now - start, gap)
            self._release()
            if not self.static:
                self._followers = (rows - len(self._runner.decoding), now + (now - start))
            self._last_step = now if self._runner.decoding.rows else 0.0

    def _prefill(self) -> None:
        """Read prompts of those who wait: a chunk a turn, or in static mode whole batches."""
        if not self.static:
            room = self._scheduler.prefill_chunk
            while room > 0 and (read := self._prefill_chunk(room)):
                room -= read
        elif not self._runner.decoding.rows:
            time.sleep(STATIC_WAIT_SECONDS)
            while self._prefill_chunk():
                pass

    def _prefill_chunk(self, room: int | None = None) -> int:
        """How many tokens were read; `room` as `Scheduler.take` has it."""
        runner = self._runner
        if not runner.prefilling.rows:
            runner.admit(self._scheduler.take(len(runner.decoding), runner.unread, room))
        if not runner.prefilling.rows:
            return 0
        read = runner.prefill()
        self._release()
        return read

    def _release(self) -> None:
        self._deliver(self._runner.release(whole=self.static))

    def _deliver(self, rows: list[Sequence]) -> None:
        """Answer rows that have ended and left."""
        for row in rows:
            row.finished = time.perf_counter()
            self.stats.sequences += 1
            self._scheduler.answered()
            row.report()

    def _end(self, rows: list[Sequence], reason: str, message: str) -> None:
        """End rows that have left in the midst of their text, and answer them."""
        for row in rows:
            if not row.finish_reason:
                row.end(reason, message)
        self._deliver(rows)

    def _shrink(self, trouble: str) -> None:
        """Out of memory: go on with half the rows; the others wait and are prefilled again."""
        self.stats.out_of_memory += 1
        kept = len(self.prefixes)
        rows = self._runner.clear()
        self._deliver([row for row in rows if row.finish_reason])
        rows = [row for row in rows if not row.finish_reason]
        if kept:  # they may have been what was too much
            self.prefixes.capacity_bytes = 0
            log.warning("out of memory: no prompts are kept from now on (%s)", trouble)
            return self._scheduler.put_back(rows)
        if len(rows) <= 1:
            log.error("out of memory with a single text: %s", trouble)
            return self._end(rows, "error", "not even this text alone fits in memory")
        self._scheduler.slots = len(rows) // 2
        log.warning("out of memory: %d slots from now on (%s)", self.slots, trouble)
        self._scheduler.put_back(rows)
        return None
