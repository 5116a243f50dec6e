"""Who sits in which slot at which step: the engine's batch, watched. (Lesson 09.)

    seats = watch_slots("course-gpt-4m", [12, 3, 5], slots=2)

The engine is the service's own, in this process and without HTTP; all texts are asked for in the
same moment and have a fixed length, so that every run shows the same steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from helpers.device import resolve_device
from helpers.settings import GenerationSettings
from serving.engine.engine import Engine
from serving.engine.jobs import Job
from serving.engine.loading import load_and_note

PROMPT = "A server is"
COLUMNS = ["step", "slot", "request", "works"]


class WatchedEngine(Engine):
    """An engine that notes its batch before every decoding step.

    Attributes:
        seen: a list for each step: (request, whether a token of its text is still to come).
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.seen: list[list[tuple[int, bool]]] = []

    def _prefill(self) -> None:
        super()._prefill()
        if rows := self._runner.decoding.rows:  # the next thing that happens is a step
            self.seen.append([(row.index + 1, not row.finish_reason) for row in rows])


def watch_slots(
    model: str, lengths: Sequence[int], slots: int = 4, batching: str = "continuous"
) -> pd.DataFrame:
    """Write texts of these lengths, and say who sat where.

    Args:
        model: as `helpers.load` takes it.
        lengths: new tokens of each text, from 2; request 1 is the first.
        slots: most texts at the same time.
        batching: "continuous" or "static".

    Returns:
        a row for each decoding step (from 1) and text in the batch: its slot (from 1; the
        lowest that was free when it came), its request, and whether it `works`: a text that
        has ended may keep its slot in a static batch, and then a row of the step is wasted.
        A text's first token comes from reading its prompt, so n tokens take n - 1 steps.
    """
    where = resolve_device("cpu")
    loaded, tokenizer, _ = load_and_note(model, where, "auto", slots, lambda model: "")
    engine = WatchedEngine(loaded, tokenizer, slots=slots, batching=batching)
    engine.start()
    engine.seen.clear()  # of the warm-up
    job = Job(time_limit=600, ignore_end=True)
    ids = list(tokenizer(PROMPT)["input_ids"])
    for length in lengths:
        job.add(GenerationSettings(temperature=0), ids, max_new_tokens=length)
    try:
        engine.submit(job)
        for _ in job.updates():
            pass
    finally:
        engine.close()
    return _seats(engine.seen)


def _seats(seen: list[list[tuple[int, bool]]]) -> pd.DataFrame:
    """Give each request the lowest free slot for as long as it is in the batch."""
    places: dict[int, int] = {}
    rows = []
    for step, batch in enumerate(seen, 1):
        here = [request for request, _ in batch]
        places = {request: slot for request, slot in places.items() if request in here}
        for request in here:
            if request not in places:
                places[request] = next(
                    n for n in range(1, len(here) + 1) if n not in places.values()
                )
        rows += [(step, places[request], request, works) for request, works in batch]
    return pd.DataFrame(rows, columns=COLUMNS)
