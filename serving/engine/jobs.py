"""What travels between the HTTP threads and the engine: jobs, their sequences, updates."""

from __future__ import annotations

import queue
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from helpers.settings import GenerationSettings

if TYPE_CHECKING:
    import torch

    from helpers.decoding import Ending
    from serving.engine.grammar import Guide

GRACE_SECONDS = 5.0  # how long past its time limit a job waits for an engine that hangs


class QueueFullError(RuntimeError):
    """Every slot and every place in the queue is taken: come back later."""


class NotReadyError(RuntimeError):
    """The model is not loaded, the engine has died, or the server is shutting down."""


class TimeLimitError(RuntimeError):
    """The job was not done within its time limit."""


class SequenceError(RuntimeError):
    """Writing one text failed; the others go on."""


@dataclass(frozen=True)
class TokenLogprob:
    """How probable the model itself found a token, before any sampling parameter.

    Attributes:
        token_id: the token that stands in the text.
        logprob: natural logarithm of its probability; None for the first of a prompt.
        top: the most probable tokens at this place, (id, logprob), best first.
    """

    token_id: int
    logprob: float | None
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Update:
    """News of one sequence: text that became certain, and why it ended if it did."""

    index: int
    text: str
    tokens: int  # new tokens so far
    finish_reason: str = ""


@dataclass(eq=False)
class Sequence:
    """One text in the making: a row of the running batch, or waiting to become one.

    Attributes:
        job: what it belongs to.
        index: its number within the job.
        settings: the parameters; the seed is `settings.seed` plus its number among the
            texts asked for with the same settings, so that each is another text.
        ids: token ids, the prompt's and then the new ones.
        prompt_tokens: how many of `ids` are the prompt.
        max_new_tokens: the most that are added to it.
        cached_tokens: how many of the prompt were not computed again: an earlier one began
            alike.
        finish_reason: "length", "end_of_text", "stop", "cancelled", "timeout", "error",
            "structure".
    """

    job: Job
    index: int
    settings: GenerationSettings
    ids: list[int]
    prompt_tokens: int
    max_new_tokens: int
    seed: int
    generator: torch.Generator | None = None  # made by the engine, on the model's device
    ending: Ending | None = None  # made by the engine, with its tokenizer
    guide: Guide | None = None  # where the text must have a form
    reported: int = 0  # how many of the pieces are on their way to the client
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: str = ""
    error: str = ""
    started: float = 0.0  # time.perf_counter() when it got its slot; 0 before that
    cached_tokens: int = 0
    first_token: float = 0.0  # time.perf_counter() at the first token; 0 before it
    finished: float = 0.0

    @property
    def new_tokens(self) -> int:
        """How many tokens were added so far."""
        return len(self.ids) - self.prompt_tokens

    def accept(self, token: int, noted: TokenLogprob | None) -> None:
        """Take the next token: the text grows, and may end with it.

        Args:
            token: its id; -1 where the model gave no numbers to choose by.
            noted: how probable it was, where the job asks for that.
        """
        assert self.ending is not None
        if token < 0:
            return self.end("error", "the model gave no numbers to choose a token by")
        self.first_token = self.first_token or time.perf_counter()
        self.ending.push(token)
        if len(self.ending.ids) > self.new_tokens:  # else it was end-of-text
            self.ids.append(token)
            if noted is not None:
                self.logprobs.append(noted)
            if self.guide and self.guide.accept(token) and self.ending.reason != "stop":
                self.ending.end("end_of_text")
                self.ending.reason = "end_of_text"  # complete: not cut where its length ends
        if self.guide and self.guide.problem:
            return self.end("structure")
        self.finish_reason = self.ending.reason
        if self.job.stream and not self.finish_reason:
            self.report()
        return None

    def end(self, reason: str, error: str = "") -> None:
        """Give the text up; the engine answers it when it next releases rows."""
        self.finish_reason, self.error = reason, error

    def report(self) -> None:
        """Send the job what is new in this text, and whether it has ended."""
        pieces = self.ending.pieces if self.ending else []
        new = "".join(pieces[self.reported :])
        self.reported = len(pieces)
        self.job.events.put(Update(self.index, new, self.new_tokens, self.finish_reason))

    @property
    def text(self) -> str:
        """The new text so far, without the prompt."""
        return self.ending.text if self.ending else ""

    @property
    def ttft(self) -> float:
        """Time to first token in seconds, waiting in the queue included."""
        return self.first_token - self.job.created

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed after the first token; 0 where there was only one."""
        span = self.finished - self.first_token
        return (self.new_tokens - 1) / span if self.new_tokens > 1 and span > 0 else 0.0


class Job:
    """One request: one or several sequences, and the queue on which their news arrives."""

    def __init__(
        self,
        time_limit: float,
        stream: bool = False,
        logprobs: int | None = None,
        prompt_logprobs: bool = False,
        ignore_end: bool = False,
        guide: Guide | None = None,
    ) -> None:
        """A job without sequences; `add` them before it is submitted.

        Args:
            time_limit: seconds until it is given up, waiting included.
            stream: report every piece, not only the ends.
            logprobs: record each new token's log-probability and that many alternatives.
            prompt_logprobs: record them for the prompt too.
            ignore_end: go on after end-of-text (for load tests of equal length).
            guide: the form that each text must have.
        """
        self.created = time.perf_counter()
        self.deadline = self.created + time_limit
        self.stream, self.logprobs, self.prompt_logprobs = stream, logprobs, prompt_logprobs
        self.ignore_end, self.guide = ignore_end, guide
        self.cancelled = False
        self.sequences: list[Sequence] = []
        self.events: queue.SimpleQueue[Update] = queue.SimpleQueue()

    def add(self, settings: GenerationSettings, prompt_ids: list[int], max_new_tokens: int) -> None:
        """One sequence for each text that `settings` asks for."""
        seed = secrets.randbits(32) if settings.seed is None else settings.seed
        for n in range(settings.num_return_sequences):
            self.sequences.append(
                Sequence(
                    job=self,
                    index=len(self.sequences),
                    settings=settings,
                    ids=list(prompt_ids),
                    prompt_tokens=len(prompt_ids),
                    max_new_tokens=max_new_tokens,
                    seed=(seed + n) % 2**63,
                    guide=self.guide and self.guide.copy(),
                )
            )

    def cancel(self) -> None:
        """Nobody waits any more: its slots are free at the next step."""
        self.cancelled = True

    def updates(self, poll_seconds: float = 0.25) -> Iterator[Update | None]:
        """News until every sequence has ended; None when nothing came for a while.

        Raises:
            TimeLimitError, NotReadyError, SequenceError: a sequence ended that way.
            ParameterError: a text could not be written in the form asked for.
        """
        open_ends = len(self.sequences)
        while open_ends:
            try:
                update = self.events.get(timeout=poll_seconds)
            except queue.Empty:
                if time.perf_counter() > self.deadline + GRACE_SECONDS:
                    self.cancel()
                    raise TimeLimitError from None
                yield None
                continue
            if update.finish_reason:
                open_ends -= 1
                if update.finish_reason == "timeout":
                    raise TimeLimitError
                if update.finish_reason == "shutdown":
                    raise NotReadyError(self.sequences[update.index].error)
                guide = self.sequences[update.index].guide
                if update.finish_reason == "structure" and guide and guide.problem:
                    raise guide.problem
                if update.finish_reason == "error":
                    raise SequenceError(self.sequences[update.index].error)
            yield update
