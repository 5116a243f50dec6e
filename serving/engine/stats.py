"""What the engine has done since its start: plain numbers that a step adds to. (Lesson 09.)

Only the engine's thread writes them, and any other may read: `serving.guard.gauges` does, when
somebody asks for `/metrics`. So counting costs a step next to nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

# Upper ends in seconds, as vLLM's for the time between two tokens, and finer below.
GAPS: tuple[float, ...] = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3)
GAPS += (0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)


@dataclass
class Stats:
    """Counters of one engine.

    Attributes:
        steps: decoding steps.
        row_steps: rows in those steps together: row_steps / steps rows a step.
        sequences: texts that were answered, however they ended.
        seconds_in_steps: time that the steps took.
        prompt_tokens: tokens of prompts that were taken to be read.
        new_tokens: tokens chosen, end-of-text included.
        out_of_memory: how often memory ran out.
        failed_steps: steps that failed otherwise.
        gaps: how many tokens came after a pause of up to `GAPS[i]` since the one before;
            one place more for longer pauses.
        gap_seconds: those pauses together.
    """

    steps: int = 0
    row_steps: int = 0
    sequences: int = 0
    seconds_in_steps: float = 0.0
    prompt_tokens: int = 0
    new_tokens: int = 0
    out_of_memory: int = 0
    failed_steps: int = 0
    gaps: list[int] = field(default_factory=lambda: [0] * (len(GAPS) + 1))
    gap_seconds: float = 0.0

    def step(self, rows: int, seconds: float, gap: float) -> None:
        """Count a decoding step.

        Args:
            rows: how many rows it had.
            seconds: how long it took.
            gap: seconds since these rows' tokens before.
        """
        self.steps += 1
        self.row_steps += rows
        self.seconds_in_steps += seconds
        self.gaps[bisect_left(GAPS, gap)] += rows
        self.gap_seconds += gap * rows
