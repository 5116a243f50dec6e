"""The engine by hand, on the thread of a test: jobs, a clock of passes, a loop that ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers.settings import GenerationSettings
from serving.engine.engine import Engine
from serving.engine.jobs import Job

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]
OPTIONS = ("logprobs", "prompt_logprobs", "ignore_end", "guide", "stream")  # of a job


class Clock:
    """Stands for `time`: it moves by 1 with each pass through the model, and notes sleeps."""

    def __init__(self) -> None:
        self.now, self.slept, self.columns = 100.0, list[float](), list[int]()

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def passed(self, _: object, arguments: tuple[torch.Tensor, ...]) -> None:
        """A hook of the embeddings: they see (rows, columns) of token ids."""
        self.now += 1
        self.columns.append(arguments[0].shape[1])


def text(length: int, first: int = 300) -> list[int]:
    """Token ids, each another."""
    return list(range(first, first + length))


def job_of(*prompts: list[int], room: int = 4, **options: Any) -> Job:
    """A job with a greedy text of at most `room` tokens for each prompt."""
    job = Job(600, **{name: options.pop(name) for name in OPTIONS if name in options})
    for ids in prompts:
        job.add(GenerationSettings(**{"temperature": 0} | options), ids, room)
    return job


def greedy(loaded: Loaded, ids: list[int], count: int) -> list[int]:
    """The most probable tokens, one by one and without a cache."""
    ids = list(ids)
    for _ in range(count):
        ids.append(int(loaded[0](input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids


def ended(job: Job) -> list[str]:
    """Why its texts ended, of those that were told."""
    found = []
    while not job.events.empty():
        found.append(job.events.get().finish_reason)
    return found


def bounded(engine: Engine, most: int = 200) -> Engine:
    """Its loop ends where it would sleep with nothing to do; after so many turns, it fails."""
    scheduler, turn, turns = engine._scheduler, engine._turn, iter(range(most))

    def stop_where_nothing_waits(*_: float) -> None:
        engine._closing = engine._closing or not len(scheduler)

    def counted() -> None:
        if next(turns, None) is None:
            pytest.fail("a loop without end")
        turn()

    scheduler.wait_for_work = stop_where_nothing_waits  # type: ignore[assignment]
    engine._turn = counted  # type: ignore[method-assign]
    return engine


def work(engine: Engine) -> None:
    """Run the engine's loop until nothing waits for it any more."""
    with torch.inference_mode():
        bounded(engine)._loop()
    engine._closing = False
