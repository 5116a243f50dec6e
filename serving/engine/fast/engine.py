"""CTranslate2 as the service's engine: batches that texts leave, but cannot join. (Lesson 08.)

Several threads take batches from the queue, so that a short text need not wait until a long one is
done: it goes with the next batch, which shares the processor with those that run. Each batch is one
call of the library, and the library calls back at every token: there texts grow, end, and are
answered, each as soon as it is done. See `batch`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from helpers.decoding import Ending
from helpers.settings import GenerationSettings
from serving.engine.fast.batch import Batch, alike
from serving.engine.fast.restrictions import RESTRICTIONS, NoForms, check
from serving.engine.interface import Scheduled
from serving.engine.jobs import Job, Sequence
from serving.engine.prefix_cache import PrefixCache
from serving.engine.scheduler import Scheduler
from serving.engine.stats import Stats
from system.errors import is_out_of_memory

if TYPE_CHECKING:
    from ctranslate2 import GenerationStepResult, Generator
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)
MAX_FAILURES = 3  # failed batches in a row after which the engine gives up
GATHER_SECONDS = 0.005  # how long a batch waits for company before it begins
LOOK_SECONDS = 0.05  # how often time limits and clients that hang up are looked for


class FastEngine(Scheduled):
    """Writes many texts at once with CTranslate2; the same to the service as torch's `Engine`."""

    def __init__(
        self,
        generator: Generator,
        vocabulary: list[str],
        tokenizer: PreTrainedTokenizerBase,
        ends: set[int | None],
        context: int,
        dtype: str,
        slots: int = 32,
        queue_length: int = 64,
    ) -> None:
        """An engine that is not running yet: `start` it.

        Args:
            generator: the library's, with the model; it writes `num_generators` batches at a time.
            vocabulary: its name of each token id.
            tokenizer: the model's.
            ends: ids that mean end-of-text.
            context: most tokens of a text, its prompt included.
            dtype: number format of the weights.
            slots: most texts that are written at the same time.
            queue_length: most texts that wait; beyond it `submit` raises.
        """
        self._generator, self._names, self._tokenizer = generator, vocabulary, tokenizer
        self._ends, self.context, self.dtype = ends, context, dtype
        self.vocabulary, self.alive = len(vocabulary), True
        self.grammars, self.prefixes, self.stats = NoForms(), PrefixCache(0), Stats()
        self._scheduler = Scheduler(slots, queue_length, prefill_chunk=1)
        self._batches: list[Batch] = []
        self._taking = threading.Lock()  # one thread at a time gathers a batch
        self._counting = threading.RLock()  # of what several batches change
        self._closing, self._failures = False, 0
        count = max(1, min(int(generator.num_generators), slots))
        self._threads = [
            threading.Thread(target=self._work, name=f"engine-{n}", daemon=True)
            for n in range(count)
        ]
        self._threads.append(threading.Thread(target=self._watch, name="watch", daemon=True))

    # What other threads call.

    @property
    def restrictions(self) -> Mapping[str, str]:
        """Parameter → what it may be here, where that is less than elsewhere."""
        return {one.parameter: one.allowed for one in RESTRICTIONS}

    def start(self) -> None:
        """Run, and prove with two tokens that this model can be served."""
        for thread in self._threads:
            thread.start()
        warm_up = Job(time_limit=600)
        ids = list(self._tokenizer("Hello")["input_ids"])
        warm_up.add(GenerationSettings(temperature=0), ids, max_new_tokens=2)
        self.submit(warm_up)
        for _ in warm_up.updates():
            pass
        self.stats = Stats()

    def submit(self, job: Job) -> None:
        """Put a job into the queue, all of its sequences or none.

        Raises:
            QueueFullError: not enough places are free (with slots, those too).
            NotReadyError: the engine has died or is closing.
            ParameterError: what the model does not have, or this library cannot do.
        """
        for row in job.sequences:
            row.settings.check_tokens(self.vocabulary)
            check(row)
        self._scheduler.submit(job)

    def close(self) -> None:
        """End everything at the next token and wait for the threads."""
        self._closing = True
        self._scheduler.close("the server is shutting down")
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    @property
    def running(self) -> int:
        """Slots in use."""
        return len(self._running())

    @property
    def cache_places(self) -> int:
        """Places in the key-value cache that texts take up."""
        return sum(batch.places for batch in list(self._batches))

    # The engine's own threads.

    def _running(self) -> list[Sequence]:
        return [row for batch in list(self._batches) for row in list(batch.left)]

    def _work(self) -> None:
        """Take one batch after the other; whoever ends last answers what still waits."""
        try:
            while not self._closing and self._failures < MAX_FAILURES:
                if batch := self._next():
                    self._write(batch)
        finally:
            self._scheduler.close("the model failed")
            self.alive = False
            for row in self._scheduler.empty():
                row.end("shutdown", self.error)
                self._deliver(row)

    def _next(self) -> Batch | None:
        """The next in the queue and what goes with it, once it has a slot; None: look again."""
        with self._taking:
            self._scheduler.wait_for_work()
            time.sleep(GATHER_SECONDS)
            free = self.slots - self.running
            rows = [] if self.error else self._scheduler.take_alike(free, alike)
            for row in rows:
                self._admit(row)
            if not (rows := [row for row in rows if not row.finish_reason]):
                return None
            batch = Batch(rows, self._names, self.stats, self._deliver, self._why_closing)
            self._batches.append(batch)
            return batch

    def _admit(self, row: Sequence) -> None:
        """Give a text its slot; one of no new tokens is done with it."""
        if row.ending is None:  # not one that comes back after running out of memory
            ends = () if row.job.ignore_end else self._ends
            row.ending = Ending(self._tokenizer, ends, row.max_new_tokens, row.settings.stop)
            row.started = time.perf_counter()
            self.stats.prompt_tokens += row.prompt_tokens
        if row.max_new_tokens == 0:
            row.first_token = time.perf_counter()
            row.ending.end("length")
            row.end("length")
            self._deliver(row)

    def _write(self, batch: Batch) -> None:
        """Run a batch to its end, and answer what the library has left in it."""
        why, again = "the library ended this text early", False
        arguments = batch.arguments() | {"callback": partial(self._step, batch)}
        try:
            self._generator.generate_batch(**arguments)
            self._failures = 0
        except Exception as error:
            why, again = "the model failed", self._failed(batch, error)
        finally:
            self._batches.remove(batch)
        going_back = [row for row in batch.left if again and not row.finish_reason]
        for row in batch.left:
            if row not in going_back:
                if not row.finish_reason:
                    row.end("error", why)
                self._deliver(row)
        self._scheduler.put_back(going_back)

    def _step(self, batch: Batch, result: GenerationStepResult) -> bool:
        with self._counting:
            return batch.step(result)

    def _failed(self, batch: Batch, error: Exception) -> bool:
        """Whether the texts can be tried again: out of memory, with half as many slots."""
        with self._counting:
            if not is_out_of_memory(error):
                self._failures += 1
                self.stats.failed_steps += 1
                log.error("a batch failed (%d in a row)", self._failures, exc_info=error)
                return False
            self.stats.out_of_memory += 1
            if len(batch.left) <= 1:
                log.error("out of memory with a single text: %s", error)
                return False
            self._scheduler.slots = len(batch.left) // 2
        log.warning("out of memory: %d slots from now on", self.slots)
        return True

    def _why_closing(self) -> str:
        return self.error if self._closing else ""

    def _deliver(self, row: Sequence) -> None:
        """Answer a text that has ended."""
        row.finished = time.perf_counter()
        with self._counting:
            self.stats.sequences += 1
        self._scheduler.answered()
        row.report()

    def _watch(self) -> None:
        """End what nobody waits for any more, or what has waited too long."""
        while self.alive:
            for row in self._scheduler.expire(self._running()):
                self._deliver(row)
            time.sleep(LOOK_SECONDS)


def arguments(threads: int, processors: int) -> dict[str, Any]:
    """How the library shares the processors: threads of a batch, and batches at a time.

    Args:
        threads: of one batch.
        processors: of this machine.
    """
    return {"intra_threads": threads, "inter_threads": max(2, processors // threads)}
