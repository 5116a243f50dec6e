"""What the service needs of an engine: torch's (`engine`) and CTranslate2's (`fast`) are two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from serving.engine.jobs import Job
from serving.engine.scheduler import Scheduler
from serving.engine.stats import Stats

if TYPE_CHECKING:
    from serving.engine.grammar import Guide, Structure
    from serving.engine.prefix_cache import PrefixCache


class Forms(Protocol):
    """What an engine can do about the form of a text."""

    @property
    def kinds(self) -> list[str]:
        """The forms that requests may ask for."""

    def guide(self, structure: Structure | None) -> Guide | None:
        """The beginning of a text of this form; None where no form is asked for.

        Raises:
            ParameterError: this form cannot be kept here.
        """


class TextEngine(Protocol):
    """Writes many texts at once; the HTTP threads submit jobs and wait for their updates.

    Attributes:
        context: most tokens of a text, its prompt included.
        vocabulary: how many token ids the model knows.
        dtype: number format of the weights.
        alive: False once the engine has ended.
        grammars, prefixes: the forms it can keep; what it keeps of prompts.
        restrictions: parameter → what it may be here, where that is less than elsewhere.
    """

    context: int
    vocabulary: int
    dtype: str
    alive: bool
    prefixes: PrefixCache

    @property
    def grammars(self) -> Forms:
        """The forms that it can keep."""

    @property
    def restrictions(self) -> Mapping[str, str]:
        """Parameter → what it may be here, where that is less than elsewhere."""

    def start(self) -> None:
        """Run, and prove with two tokens that this model can be served."""

    def submit(self, job: Job) -> None:
        """Put a job into the queue, all of its sequences or none.

        Raises:
            QueueFullError: not enough places are free (with slots, those too).
            NotReadyError: the engine has died or is closing.
            ParameterError: something that the model or the engine cannot do.
        """

    def close(self) -> None:
        """End everything at the next step and wait for the threads."""

    @property
    def stats(self) -> Stats:
        """What it has done since its start."""

    @property
    def slots(self) -> int:
        """Most texts that are written at the same time."""

    @property
    def running(self) -> int:
        """Slots in use."""

    @property
    def waiting(self) -> int:
        """Sequences in the queue."""

    @property
    def unanswered(self) -> int:
        """Sequences that wait or are written."""

    @property
    def cache_places(self) -> int:
        """Places in the key-value cache that are taken up."""

    @property
    def error(self) -> str:
        """Why the engine takes no jobs any more; empty while it does."""


class Scheduled:
    """What any engine with a scheduler says of it."""

    _scheduler: Scheduler

    @property
    def slots(self) -> int:
        """Most texts that are written at the same time; fewer once memory has run out."""
        return self._scheduler.slots

    @property
    def waiting(self) -> int:
        """Sequences in the queue."""
        return len(self._scheduler)

    @property
    def unanswered(self) -> int:
        """Sequences that wait or are written."""
        return self._scheduler.unanswered

    @property
    def error(self) -> str:
        """Why the engine takes no jobs any more; empty while it does."""
        return self._scheduler.closed
