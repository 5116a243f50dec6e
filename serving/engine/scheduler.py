"""Who is written when: the bounded queue, the slots, the time limits. (Lesson 09.)

Nothing here knows of models. HTTP threads `submit`; the engine's own thread does the rest.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from serving.engine.jobs import Job, NotReadyError, QueueFullError, Sequence


class Scheduler:
    """The queue of sequences and the slots that they wait for.

    Attributes:
        slots: most sequences that are written at the same time.
        queue_length: most sequences that wait; beyond it `submit` raises.
        prefill_chunk: most prompt tokens that are taken from the queue at once.
        closed: why no job is taken any more; empty while jobs are.
    """

    def __init__(self, slots: int, queue_length: int, prefill_chunk: int) -> None:
        self.slots, self.queue_length, self.prefill_chunk = slots, queue_length, prefill_chunk
        self.closed = ""
        self._waiting: deque[Sequence] = deque()
        self._unanswered = 0  # sequences submitted and not yet answered
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """How many sequences wait."""
        return len(self._waiting)

    @property
    def unanswered(self) -> int:
        """Sequences that wait or are written."""
        return self._unanswered

    def submit(self, job: Job) -> None:
        """Put a job into the queue, all of its sequences or none.

        Raises:
            QueueFullError: not enough places are free (with slots, those too).
            NotReadyError: the engine has died or is closing.
        """
        with self._changed:
            if self.closed:
                raise NotReadyError(self.closed)
            if self._unanswered + len(job.sequences) > self.slots + self.queue_length:
                raise QueueFullError
            self._unanswered += len(job.sequences)
            self._waiting.extend(job.sequences)
            self._changed.notify()

    def close(self, reason: str) -> None:
        """Take no more jobs."""
        with self._changed:
            self.closed = self.closed or reason
            self._changed.notify()

    def wait_for_work(self, company: int = 1, until: float = 0.0) -> None:
        """Sleep while nothing waits.

        Args:
            company: how many sequences are worth waiting for once there is one,
            until: and until when (time.perf_counter()).
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self.closed)
            left = max(0.0, until - time.perf_counter())
            self._changed.wait_for(lambda: len(self._waiting) >= company or self.closed, left)

    def take(
        self, running: int, unread: Callable[[Sequence], int], room: int | None = None
    ) -> list[Sequence]:
        """The next in the queue: one long prompt, or as many short ones as fit in a chunk.

        Args:
            running: how many slots are in use.
            unread: how many tokens of a prompt have to be read.
            room: what is left of a chunk of which some was read: no long prompt is taken then.
        """
        group: list[Sequence] = []
        longest, most = 0, self.prefill_chunk if room is None else room
        with self._changed:
            while self._waiting and running + len(group) < self.slots:
                following = self._waiting[0]
                longest = max(longest, unread(following))
                alone = following.job.prompt_logprobs
                too_much = alone or longest * (len(group) + 1) > most
                if too_much and (group or most < self.prefill_chunk):
                    break
                group.append(self._waiting.popleft())
                if alone:
                    break
        return group

    def take_alike(
        self, free: int, alike: Callable[[list[Sequence], Sequence], bool]
    ) -> list[Sequence]:
        """The next in the queue, and all behind it that can be written together with it.

        Args:
            free: at most so many.
            alike: whether a row goes with those that were taken before it.
        """
        group: list[Sequence] = []
        with self._changed:
            others: deque[Sequence] = deque()
            for row in self._waiting:
                suits = len(group) < free and (not group or alike(group, row))
                (group if suits else others).append(row)
            self._waiting = others
        return group

    def put_back(self, rows: Iterable[Sequence]) -> None:
        """Rows that have to be prefilled again wait at the head of the queue."""
        with self._changed:
            self._waiting.extendleft(reversed(list(rows)))

    def expire(self, running: Iterable[Sequence]) -> list[Sequence]:
        """End what nobody waits for any more, or what has waited too long.

        Args:
            running: the rows that have a slot.

        Returns:
            those that ended in the queue: they have left it.
        """
        now = time.perf_counter()
        with self._changed:
            for row in [*self._waiting, *running]:
                if not row.finish_reason and (row.job.cancelled or now > row.job.deadline):
                    row.end("cancelled" if row.job.cancelled else "timeout")
            gone = [row for row in self._waiting if row.finish_reason]
            if gone:
                self._waiting = deque(row for row in self._waiting if not row.finish_reason)
        return gone

    def empty(self) -> list[Sequence]:
        """Everything that waits; it has left the queue."""
        with self._changed:
            rows = list(self._waiting)
            self._waiting.clear()
        return rows

    def answered(self) -> None:
        """A sequence has been answered: its place is free."""
        with self._changed:
            self._unanswered -= 1
